"""The gate: who a caller is and whether it may do what it asks, for every port of the server.

What has been verified once is known by its hash until it ends, so a known caller costs a hash and two look-ups. All of it
belongs to one thread; new credentials are handed over by an action there. Of why a caller is refused it learns nothing that
helps to guess; the log says it, at most once a second.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import structlog

from penstock_server.access import jwt_tokens
from penstock_server.access.credentials import Credentials
from penstock_server.access.identity import STRANGER, Identity
from penstock_server.access.limits import CallerBuckets
from penstock_server.access.policy import Policy, Rights
from penstock_server.access.settings import AccessSettings, Verb
from penstock_server.access.tokens import hash_of
from penstock_server.errors import DeniedError, NotReadyError, UnauthenticatedError

log = structlog.get_logger(__name__)

MOST_KNOWN: Final = 8192
"""Callers that are remembered; then all are forgotten."""
BEARER: Final = "bearer "
_LOG_PAUSE_S: Final = 1.0
_UNKNOWN: Final = "the caller is not known here: expected a bearer token or a client certificate that is"


@dataclass(frozen=True, slots=True)
class Caller:
    """A known caller: who it is, and what it may do."""

    identity: Identity
    rights: Rights


class AccessGate:
    """Asks each caller who it is, and lets it do what the rules allow.

    Args:
        settings: of access.
        buckets: count the calls of identities that have a limit.
        want_keys: called with the name of an issuer whose token names a key that is not known.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        settings: AccessSettings,
        *,
        buckets: CallerBuckets | None = None,
        want_keys: Callable[[str], None] = lambda _issuer: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._policy = Policy(settings.rules)
        self.buckets = CallerBuckets() if buckets is None else buckets
        self._want_keys = want_keys
        self._wall = wall
        self._credentials = Credentials()
        self._by_token: dict[bytes, Caller] = {}
        self._by_names: dict[tuple[str, ...], Caller] = {}
        self._logged_s = -inf

    def use(self, credentials: Credentials) -> None:
        """Checks tokens against these from now on, those that were known too."""
        self._credentials = credentials
        self._by_token.clear()

    def check(self, caller: Caller, verb: Verb, model: str | None) -> None:
        """Lets a caller do something, and counts that it did.

        Args:
            caller: who.
            verb: what is asked.
            model: on which model, or as `Rights.allow` has it.

        Raises:
            UnauthenticatedError: nobody may do this who is not known.
            DeniedError: this caller may not do this.
            LimitedError: it calls too often.
        """
        if not caller.rights.allow(verb, model):
            if caller.identity is STRANGER:
                raise self._refusal("it shows neither a token nor a certificate")
            raise DeniedError(f"the caller has no right to {verb} here")
        if caller.rights.limit is not None:
            self.buckets.take(caller.identity.name, caller.rights.limit)

    def caller(self, authorization: Sequence[str], peer: tuple[str, ...]) -> Caller:
        """Who calls: the bearer of a token if one is shown, else the owner of the certificate, else a stranger.

        Raises:
            UnauthenticatedError: the token is not valid, or there are two.
            NotReadyError: the keys of its issuer have not been had yet.
        """
        if not authorization:
            return self._owner(peer)
        value = authorization[0]
        if len(authorization) > 1 or value[: len(BEARER)].lower() != BEARER:
            raise self._refusal("it shows something else than one bearer token")
        token = value[len(BEARER) :].strip(" ")
        digest = hash_of(token)
        caller = self._by_token.get(digest)
        if caller is None:
            identity = self._bearer(token, digest)
            caller = Caller(identity, self._policy.rights_of(identity.names))
            if len(self._by_token) >= MOST_KNOWN:
                self._by_token.clear()
            self._by_token[digest] = caller
        if caller.identity.expires_s <= self._wall():
            self._by_token.pop(digest, None)
            raise self._refusal("its token has ended")
        return caller

    def _owner(self, peer: tuple[str, ...]) -> Caller:
        caller = self._by_names.get(peer)
        if caller is None:
            identity = Identity(peer) if peer else STRANGER
            caller = Caller(identity, self._policy.rights_of(identity.names))
            if len(self._by_names) >= MOST_KNOWN:
                self._by_names.clear()
            self._by_names[peer] = caller
        return caller

    def _bearer(self, token: str, digest: bytes) -> Identity:
        identity = self._credentials.tokens.get(digest)
        if identity is not None:
            return identity
        if not jwt_tokens.looks_like_one(token):
            raise self._refusal("its token is not known")
        try:
            return jwt_tokens.verified(token, self._credentials.issuers, self._wall())
        except jwt_tokens.NoKeysError as error:
            self._refusal(str(error))
            raise NotReadyError("tokens cannot be checked yet; try again later") from None
        except jwt_tokens.UnknownKeyError as error:
            self._want_keys(str(error))
            raise self._refusal("its token is signed with a key that is not known") from None
        except jwt_tokens.RefusedTokenError as error:
            raise self._refusal(f"its token is refused: {error}") from None

    def _refusal(self, why: str) -> UnauthenticatedError:
        """What every caller is told that is not known, whatever the reason; the log has the reason."""
        now_s = self._wall()
        if not 0 <= now_s - self._logged_s < _LOG_PAUSE_S:
            self._logged_s = now_s
            log.info("a caller is not known", reason=why)
        return UnauthenticatedError(_UNKNOWN)
