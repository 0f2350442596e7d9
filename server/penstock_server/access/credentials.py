"""What callers' tokens are checked against: static tokens and issuers' keys, as they are now; never changed, only replaced.

Files are read here; what is fetched is `fetch`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock_server.access.identity import Identity
from penstock_server.access.jwt_tokens import Issuer, Key, key_of_pem, key_of_secret, keys_of_set
from penstock_server.access.settings import AccessSettings, IssuerSettings
from penstock_server.access.tokens import read_text, read_token_file


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that tokens are checked against.

    Attributes:
        tokens: static ones by their hashes. What the time of a look-up may tell of a hash tells nothing of the token, nor of
            the hash of the next guess.
        issuers: by what their tokens' `iss` is.
    """

    tokens: Mapping[bytes, Identity] = field(default_factory=dict)
    issuers: Mapping[str, Issuer] = field(default_factory=dict)


def credentials_of(
    settings: AccessSettings, tokens: Mapping[bytes, Identity], keys: Mapping[str, tuple[Key, ...]]
) -> Credentials:
    """The credentials of what has been read: keys by the names of their issuers."""
    issuers = (Issuer(name, issuer, keys.get(name)) for name, issuer in settings.issuers.items())
    return Credentials(tokens, {issuer.settings.issuer: issuer for issuer in issuers})


def keys_in_file(settings: IssuerSettings, file: Path) -> tuple[Key, ...]:
    """The keys in an issuer's file.

    Raises:
        InvalidInputError: it cannot be read, or has none.
    """
    text = read_text(file)
    if settings.secret is not None:
        return key_of_secret(text, str(file), settings.accepted)
    return key_of_pem(text, str(file)) if settings.key is not None else keys_of_set(text, str(file))


def check_files(settings: AccessSettings) -> None:
    """Reads every file that the settings name.

    Raises:
        InvalidInputError: one cannot be used; says which and why.
    """
    if settings.tokens is not None:
        read_token_file(settings.tokens)
    for issuer in settings.issuers.values():
        if issuer.file is not None:
            keys_in_file(issuer, issuer.file)
