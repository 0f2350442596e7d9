"""Says whose a token is and what it may do, for the people who give it: `penstock token check`.

Unlike the gate it says why a token is refused.
"""

from dataclasses import dataclass

from penstock_server.access import jwt_tokens
from penstock_server.access.credentials import Credentials, credentials_of, keys_in_file
from penstock_server.access.fetch import fetch_keys
from penstock_server.access.identity import Identity
from penstock_server.access.policy import Policy, Rights
from penstock_server.access.settings import VERBS, AccessSettings, Verb
from penstock_server.access.tokens import hash_of, read_token_file
from penstock_server.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Explanation:
    """A valid token.

    Attributes:
        identity: whose it is, and until when.
        rights: what it may do.
    """

    identity: Identity
    rights: Rights

    def verbs_on(self, model: str) -> tuple[Verb, ...]:
        """What it may do with one model."""
        return tuple(verb for verb in VERBS if self.rights.allow(verb, model))


def credentials_now(settings: AccessSettings, *, fetches: bool = True) -> Credentials:
    """What tokens are checked against, read and fetched now.

    Args:
        settings: of access.
        fetches: whether keys are fetched; else their issuers have none.

    Raises:
        InvalidInputError, UnavailableError: a file cannot be used, or an address does not answer.
    """
    keys = {}
    for name, issuer in settings.issuers.items():
        if issuer.file is not None:
            keys[name] = keys_in_file(issuer, issuer.file)
        elif fetches:
            keys[name] = fetch_keys(issuer.jwks)
    return credentials_of(settings, {} if settings.tokens is None else read_token_file(settings.tokens), keys)


def explain(token: str, settings: AccessSettings, now_s: float) -> Explanation:
    """Whose a token is, and what it may do.

    Raises:
        InvalidInputError: it is not valid; says why. Also if a file cannot be used.
        UnavailableError: the keys of its kind cannot be fetched.
    """
    is_signed = jwt_tokens.looks_like_one(token)
    credentials = credentials_now(settings, fetches=is_signed)
    identity = credentials.tokens.get(hash_of(token))
    if identity is None:
        if not is_signed:
            raise InvalidInputError("the token is not in the file of tokens, and is no JSON Web Token")
        try:
            identity = jwt_tokens.verified(token, credentials.issuers, now_s)
        except jwt_tokens.UnknownKeyError as error:
            raise InvalidInputError(f"the token is signed with a key that {error} does not have") from None
        except jwt_tokens.RefusedTokenError as error:
            raise InvalidInputError(f"the token is refused: {error}") from None
    if identity.expires_s <= now_s:
        raise InvalidInputError(f"the token of {identity.name} has ended")
    return Explanation(identity, Policy(settings.rules).rights_of(identity.names))
