import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from math import inf
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.access.jwt_tokens import (
    Issuer,
    Key,
    NoKeysError,
    RefusedTokenError,
    UnknownKeyError,
    key_of_pem,
    key_of_secret,
    keys_of_set,
    looks_like_one,
    verified,
)
from penstock_server.access.settings import IssuerSettings
from penstock_server.errors import InvalidInputError
from tests.server.access.conftest import AUDIENCE, ISSUER, TokenIssuer, claims, ec_key, jwk, pem, rsa_key

SECRET = "s" * 64


def issuers(keys: tuple[Key, ...] | None, **changes: Any) -> dict[str, Issuer]:
    return {ISSUER: Issuer("corp", IssuerSettings(ISSUER, AUDIENCE, jwks="f", **changes), keys)}


def part(value: Any) -> str:
    return urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_says_who_bears_it(issuer: TokenIssuer) -> None:
    token = issuer.token(exp=time.time() + 60)
    assert looks_like_one(token)
    identity = verified(token, issuers(keys_of_set(issuer.key_set, "s"), leeway_s=5.0), time.time())
    assert identity.names == ("jwt:corp:shop",)
    assert identity.expires_s == pytest.approx(time.time() + 65, abs=3)


def test_another_claim_may_name_the_caller(issuer: TokenIssuer) -> None:
    keys = keys_of_set(issuer.key_set, "s")
    assert verified(issuer.token(azp="web"), issuers(keys, subject="azp"), 0.0).name == "jwt:corp:web"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": time.time() - 3600}, "ExpiredSignature"),
        ({"exp": None}, "MissingRequiredClaim"),
        ({"exp": "soon"}, "Decode"),
        ({"exp": float("inf")}, "cannot be read|Decode"),
        ({"nbf": time.time() + 3600}, "ImmatureSignature"),
        ({"aud": "another"}, "InvalidAudience"),
        ({"aud": None}, "MissingRequiredClaim"),
        ({"iss": "https://another.example"}, "issuer is not known"),
        ({"iss": None}, "issuer is not known"),
        ({"sub": None}, "is no name"),
        ({"sub": ""}, "is no name"),
        ({"sub": "a\nb"}, "is no name"),
        ({"sub": "x" * 600}, "is no name"),
    ],
)
def test_claims_that_prove_nothing_are_refused(issuer: TokenIssuer, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedTokenError, match=reason):
        verified(issuer.token(**changes), issuers(keys_of_set(issuer.key_set, "s")), time.time())


def test_clocks_may_differ_by_the_leeway(issuer: TokenIssuer) -> None:
    keys = keys_of_set(issuer.key_set, "s")
    token = issuer.token(exp=time.time() - 10)
    assert verified(token, issuers(keys, leeway_s=60.0), time.time())
    with pytest.raises(RefusedTokenError):
        verified(token, issuers(keys, leeway_s=0.0), time.time())


def test_keys_are_found_by_their_names(issuer: TokenIssuer) -> None:
    issuer.keys["two"] = ec_key(2)
    known = issuers(keys_of_set(issuer.key_set, "s"))
    assert verified(issuer.token("two"), known, 0.0)
    with pytest.raises(RefusedTokenError, match="which of several"):
        verified(issuer.token(None), known, 0.0)
    issuer.keys["three"] = ec_key(3)
    with pytest.raises(UnknownKeyError):
        verified(issuer.token("three"), known, 0.0)
    with pytest.raises(NoKeysError):
        verified(issuer.token(), issuers(None), 0.0)
    with pytest.raises(RefusedTokenError, match="InvalidSignature"):
        verified(jwt.encode(claims(), ec_key(2), algorithm="ES256", headers={"kid": "one"}), known, 0.0)


@pytest.mark.parametrize("algorithm", ["none", "NONE", "HS256", "ES256K", "RS999", "", None, 5, ["ES256"], {"a": 1}])
def test_no_token_chooses_its_algorithm(issuer: TokenIssuer, algorithm: Any) -> None:
    head, body, signature = issuer.token().split(".")
    forged = {**json.loads(urlsafe_b64decode(head + "==")), "alg": algorithm}
    for end in (signature, ""):
        with pytest.raises(RefusedTokenError):
            verified(f"{part(forged)}.{body}.{end}", issuers(keys_of_set(issuer.key_set, "s")), 0.0)


def test_a_public_key_is_no_secret() -> None:
    """The classic attack: a token signed by HS256 with the public key as the secret."""
    text = pem(rsa_key())
    keys = key_of_pem(text, "f")
    head = part({"alg": "HS256", "typ": "JWT"})
    signed = f"{head}.{part(claims())}"
    forged = f"{signed}.{part(hmac.digest(text.encode(), signed.encode(), hashlib.sha256))}"
    with pytest.raises(RefusedTokenError):
        verified(forged, issuers(keys, algorithms=("RS256",)), 0.0)
    with pytest.raises(InvalidInputError, match="no secret"):
        key_of_secret(text, "f", ("HS256",))
    secret = IssuerSettings(ISSUER, AUDIENCE, secret=Path("f"))
    with pytest.raises(RefusedTokenError):
        verified(forged, {ISSUER: Issuer("corp", secret, keys)}, 0.0)


def test_a_secret_and_a_pem_file() -> None:
    secret = Issuer(
        "corp", IssuerSettings(ISSUER, AUDIENCE, secret=Path("f")), key_of_secret(f" {SECRET}\n", "f", ("HS256",))
    )
    assert verified(jwt.encode(claims(), SECRET, algorithm="HS256"), {ISSUER: secret}, 0.0)
    with pytest.raises(RefusedTokenError):
        verified(jwt.encode(claims(), SECRET[1:] + "t", algorithm="HS256"), {ISSUER: secret}, 0.0)
    with pytest.raises(InvalidInputError, match="no secret of 64 bytes"):
        key_of_secret("s" * 63, "f", ("HS256", "HS512"))
    assert verified(jwt.encode(claims(), rsa_key(), algorithm="RS256"), issuers(key_of_pem(pem(rsa_key()), "f")), 0.0)
    with pytest.raises(InvalidInputError, match="no public key"):
        key_of_pem("nothing", "f")
    with pytest.raises(InvalidInputError, match="1024 bits"):
        key_of_pem(pem(rsa_key(1, 1024)), "f")


def test_extensions_that_must_be_understood_are_not(issuer: TokenIssuer) -> None:
    with pytest.raises(RefusedTokenError):
        verified(issuer.token(header={"crit": ["b64"], "b64": False}), issuers(keys_of_set(issuer.key_set, "s")), 0.0)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [5],
        [{"kty": "oct", "k": "c2VjcmV0"}],
        [jwk(ec_key(), use="enc")],
        [jwk(ec_key(), key_ops=["sign"])],
        [jwk(ec_key(), kid=5)],
        [jwk(rsa_key(1, 1024))],
        [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}],
        [{"kty": "RSA"}],
    ],
)
def test_a_set_without_a_usable_key_is_refused(entries: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match="has no key"):
        keys_of_set(json.dumps({"keys": entries}), "s")
    assert len(keys_of_set(json.dumps({"keys": [*entries, jwk(ec_key(), alg="ES256")]}), "s")) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 5}', "[" * 100_000, "\x00"])
def test_a_text_that_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no JSON Web Key Set"):
        keys_of_set(text, "s")


def test_a_private_part_is_not_kept() -> None:
    whole = jwt.algorithms.ECAlgorithm.to_jwk(ec_key(), as_dict=True)
    (key,) = keys_of_set(json.dumps({"keys": [whole]}), "s")
    assert not hasattr(key.key, "sign")


KNOWN = issuers(keys_of_set(TokenIssuer().key_set, "s"))
TOKEN = TokenIssuer().token(exp=time.time() + 86_400)


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("more", ["=", " ", ":", "\n", "\x80", "."])
def test_a_token_is_written_in_one_way(at: int, more: str) -> None:
    parts = TOKEN.split(".")
    parts[at] += more
    with pytest.raises(RefusedTokenError, match="compact"):
        verified(".".join(parts), KNOWN, 0.0)


@pytest.mark.long
@settings(max_examples=300)
@given(st.data())
def test_no_mutated_token_is_let_through_and_none_ends_the_server(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TOKEN) - 1))
    changed = data.draw(st.text(alphabet=st.characters(codec="latin-1"), max_size=4))
    mutated = TOKEN[:at] + changed + TOKEN[at + data.draw(st.integers(0, 4)) :]
    try:
        found = verified(mutated, KNOWN, 0.0)
    except RefusedTokenError:
        return
    # Base64 has a few ways to write the same signature, which is no other token.
    assert mutated.rpartition(".")[0] == TOKEN.rpartition(".")[0]
    assert urlsafe_b64decode(mutated.rpartition(".")[2] + "==") == urlsafe_b64decode(TOKEN.rpartition(".")[2] + "==")
    assert found.expires_s < inf


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c"]),
        st.text() | st.integers() | st.none(),
    ),
)
def test_no_claims_or_header_end_the_server(body: Any, header: dict[str, Any]) -> None:
    with pytest.raises(RefusedTokenError):
        verified(f"{part({'alg': 'ES256', **header})}.{part(body)}.{part(b'x' * 64)}", KNOWN, 0.0)
