"""JSON Web Tokens: what a signed token says of its bearer, once its signature and its claims are checked.

Keys come from a JSON Web Key Set or a PEM file; which algorithms are accepted is the settings' choice and never the token's.
A key has one kind, and a token of another algorithm does not fit it.

Sources: RFC 7519 (tokens), RFC 7517 (keys), RFC 8725 (what to guard against).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from penstock_server.access.identity import Identity
from penstock_server.access.settings import IssuerSettings
from penstock_server.errors import InvalidInputError
from penstock_server.transport.certificate import is_name

LEAST_RSA_BITS: Final = 2048
MOST_KEYS: Final = 256
_FAMILIES: Final = {"RS": ("RSA",), "PS": ("RSA",), "ES": ("EC",), "Ed": ("OKP",), "HS": ("oct",)}
"""The kinds of keys that algorithms take, by how their names begin."""


_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class RefusedTokenError(Exception):
    """Why a token is refused, for the log alone."""


class UnknownKeyError(RefusedTokenError):
    """The token names a key that its issuer did not have when it was asked last."""


class NoKeysError(RefusedTokenError):
    """The issuer's keys have not been had yet."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an issuer.

    Attributes:
        id: its name, "" for none.
        kind: as RFC 7517 has it: RSA, EC, OKP or oct.
        algorithm: the only one that it is for; "" for all of its kind.
        key: as the library takes it.
    """

    id: str
    kind: str
    algorithm: str
    key: Any

    def fits(self, algorithm: str) -> bool:
        return self.algorithm in ("", algorithm) and self.kind in _FAMILIES.get(algorithm[:2], ())


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer with the keys that it has now; None while they have not been had."""

    name: str
    settings: IssuerSettings
    keys: tuple[Key, ...] | None


def keys_of_set(text: str, source: str) -> tuple[Key, ...]:
    """The keys of a JSON Web Key Set that verify signatures.

    Raises:
        InvalidInputError: the text is no such set, or has no such key.
    """
    try:
        entries = json.loads(text)["keys"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInputError(f"{source} is no JSON Web Key Set, expected an object with a list 'keys'") from None
    found = [key for each in entries[:MOST_KEYS] if (key := _key_of(each)) is not None]
    if not found:
        raise InvalidInputError(f"{source} has no key that verifies signatures, expected one of RSA, EC or OKP")
    return tuple(found)


def _key_of(entry: Any) -> Key | None:
    """A key of a set; None for one that is secret, too short, for something else, or not understood."""
    import jwt  # 50 ms, which servers without JSON Web Tokens do without

    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    name, algorithm = entry.get("kid", ""), entry.get("alg", "")
    if not isinstance(name, str) or not isinstance(algorithm, str):
        return None
    public = {name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
    try:
        key = jwt.PyJWK.from_dict(public).key
    except Exception:  # noqa: BLE001 - of what others write one key may be anything
        return None
    if entry["kty"] == "RSA" and getattr(key, "key_size", 0) < LEAST_RSA_BITS:
        return None
    return Key(name, entry["kty"], algorithm, key)


def key_of_pem(text: str, source: str) -> tuple[Key, ...]:
    """The one public key of a PEM file.

    Raises:
        InvalidInputError: there is none, or it is too short.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        is_certificate = "BEGIN CERTIFICATE" in text
        key = (
            load_pem_x509_certificate(text.encode()).public_key()
            if is_certificate
            else load_pem_public_key(text.encode())
        )
    except ValueError as error:
        raise InvalidInputError(f"{source} holds no public key in PEM form") from error
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise InvalidInputError(f"{source} has {key.key_size} bits, expected at least {LEAST_RSA_BITS}")
        return (Key("", "RSA", "", key),)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return (Key("", "EC", "", key),)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return (Key("", "OKP", "", key),)
    raise InvalidInputError(f"{source} holds a key of another kind, expected RSA, EC or Ed25519")


def key_of_secret(text: str, source: str, algorithms: Iterable[str]) -> tuple[Key, ...]:
    """The secret in a file, without the white space around it.

    Raises:
        InvalidInputError: it is shorter than the hashes of these algorithms (RFC 7518, 3.2), or a public key.
    """
    secret = text.strip().encode()
    least = max(int(name[2:]) // 8 for name in algorithms)
    if len(secret) < least or b"-----BEGIN" in secret:
        raise InvalidInputError(f"{source} holds no secret of {least} bytes or more")
    return (Key("", "oct", "", secret),)


def looks_like_one(token: str) -> bool:
    """Whether a token may be a JSON Web Token: three parts in Base64 for addresses, without padding (RFC 7515, 7.1).

    Libraries pass over what is no Base64, so that one token could be written in many ways.
    """
    return _COMPACT.fullmatch(token) is not None


def verified(token: str, issuers: Mapping[str, Issuer], now_s: float) -> Identity:
    """Who bears a token.

    Args:
        token: as it came.
        issuers: by what `iss` must be.
        now_s: the time, in seconds since 1970.

    Raises:
        RefusedTokenError: the token proves nothing; of its text nothing is told.
    """
    import jwt

    if not looks_like_one(token):
        raise RefusedTokenError("it is not in the compact form")
    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
        header, claimed = parts["header"], parts["payload"].get("iss")
        issuer = issuers.get(claimed) if isinstance(claimed, str) else None
        if issuer is None:
            raise RefusedTokenError("its issuer is not known")
        claims = _claims(token, header, issuer)
        return _identity(claims, issuer, now_s)
    except RefusedTokenError:
        raise
    except jwt.PyJWTError as error:
        raise RefusedTokenError(type(error).__name__) from None
    except Exception as error:  # noqa: BLE001 - whatever a token makes the library do, it is no token
        raise RefusedTokenError(f"it cannot be read: {type(error).__name__}") from None


def _claims(token: str, header: Mapping[str, Any], issuer: Issuer) -> dict[str, Any]:
    import jwt

    settings = issuer.settings
    algorithm = header.get("alg")
    if algorithm not in settings.accepted:
        raise RefusedTokenError("its algorithm is not accepted")
    if "crit" in header:
        raise RefusedTokenError("its header has extensions that must be understood")
    key = _chosen(issuer, header.get("kid"), algorithm)
    found: dict[str, Any] = jwt.decode(
        token,
        key.key,
        algorithms=[algorithm],
        audience=settings.audience,
        issuer=settings.issuer,
        leeway=settings.leeway_s,
        options={"require": ["exp", "iss", "aud"]},
    )
    return found


def _chosen(issuer: Issuer, name: object, algorithm: str) -> Key:
    """The key that a token names, or the only one that fits where it names none."""
    if issuer.keys is None:
        raise NoKeysError(f"the keys of {issuer.name} have not been had yet")
    fitting = [key for key in issuer.keys if key.fits(algorithm)]
    named = [key for key in fitting if not key.id or name is None or key.id == name]
    if not named:
        raise UnknownKeyError(issuer.name)
    if len(named) > 1:
        exact = [key for key in named if key.id == name]
        if len(exact) != 1:
            raise RefusedTokenError("it does not say which of several keys signed it")
        return exact[0]
    return named[0]


def _identity(claims: Mapping[str, Any], issuer: Issuer, now_s: float) -> Identity:
    subject, ends = claims.get(issuer.settings.subject), claims["exp"]
    if not is_name(subject):
        raise RefusedTokenError(f"its claim {issuer.settings.subject!r} is no name")
    ends_s = float(ends) + issuer.settings.leeway_s
    if not isfinite(ends_s) or ends_s <= now_s:
        raise RefusedTokenError("it has ended")
    return Identity((f"jwt:{issuer.name}:{subject}",), ends_s)
