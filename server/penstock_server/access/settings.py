"""The settings of access: where identities come from, and which of them may do what on which models.

Without a rule nothing is asked of callers. With one, everything is denied that no rule allows.
"""

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from penstock_server.errors import InvalidInputError

Verb = Literal["infer", "feedback", "read", "control"]
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
ANYBODY: Final = "anybody"
"""The name of a caller that shows nothing. No pattern with a star matches it."""
KINDS: Final = ("uri:", "dns:", "email:", "cn:", "jwt:", "token:")
"""How the names of identities begin: those of certificates by the kind of name, those of tokens by what they are."""
PUBLIC_ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
SECRET_ALGORITHMS: Final = ("HS256", "HS384", "HS512")


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """Who signs JSON Web Tokens, and how they are checked.

    Attributes:
        issuer: what the claim `iss` must be.
        audience: what the claim `aud` must be, or hold.
        jwks: the keys: a file, or an address that begins with https:// or http://.
        key: a PEM file with one public key, in place of `jwks`.
        secret: a file with the secret of HS256 to HS512, in place of both.
        algorithms: those that are accepted.
        subject: the claim that names the caller.
        leeway_s: how far the clocks of issuer and server may differ.
        refresh_s: how often keys are fetched from an address.
    """

    issuer: str
    audience: str
    jwks: str = ""
    key: Path | None = None
    secret: Path | None = None
    algorithms: tuple[str, ...] = ()
    subject: str = "sub"
    leeway_s: float = 30.0
    refresh_s: float = 300.0

    @property
    def is_fetched(self) -> bool:
        """Whether the keys come from an address."""
        return self.jwks.startswith(("https://", "http://"))

    @property
    def accepted(self) -> tuple[str, ...]:
        """The algorithms that are accepted; by default the two that most issuers use, or HS256 for a secret."""
        return self.algorithms or (("HS256",) if self.secret is not None else ("RS256", "ES256"))

    @property
    def file(self) -> Path | None:
        """The file that holds the keys; None where they are fetched."""
        return self.key or self.secret or (None if self.is_fetched else Path(self.jwks))

    def check(self, name: str) -> None:
        """Raises `InvalidInputError` if something is wrong; names the setting."""
        where = f"access.issuers.{name}"
        if not self.issuer or not self.audience or not self.subject:
            raise InvalidInputError(f"{where} has an empty issuer, audience or subject, expected all three")
        if sum(map(bool, (self.jwks, self.key, self.secret))) != 1:
            raise InvalidInputError(f"{where} takes one of jwks, key and secret")
        if "://" in self.jwks and not (self.is_fetched and urlsplit(self.jwks).hostname):
            raise InvalidInputError(f"{where}.jwks is {self.jwks!r}, expected a file, https://... or http://...")
        # A public key is no secret: a token signed with it by HS256 would be anybody's.
        known = SECRET_ALGORITHMS if self.secret is not None else PUBLIC_ALGORITHMS
        if wrong := [each for each in self.accepted if each not in known]:
            raise InvalidInputError(f"{where}.algorithms has {', '.join(wrong)}, expected some of {', '.join(known)}")
        # Written so that NaN, which TOML can say, is refused as well.
        if not 0 <= self.leeway_s <= 600:
            raise InvalidInputError(f"{where}.leeway_s is {self.leeway_s}, expected 0 to 600 seconds")
        if not 10 <= self.refresh_s <= 86_400:
            raise InvalidInputError(f"{where}.refresh_s is {self.refresh_s}, expected 10 to 86,400 seconds")


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What some identities may do.

    Attributes:
        who: names of identities, in which `*` stands for any characters; "anybody" is a caller that shows nothing.
        may: what they may do: infer, feedback, read, control.
        models: names of models, in which `*` stands for any characters.
        requests_per_s: how many calls each of them may make per second; None sets no limit.
        burst: how many at once; None is a second's.
    """

    who: tuple[str, ...]
    may: tuple[Verb, ...]
    models: tuple[str, ...] = ("*",)
    requests_per_s: float | None = None
    burst: int | None = None

    def check(self, name: str) -> None:
        """Raises `InvalidInputError` if something is wrong; names the setting."""
        where = f"access.rules.{name}"
        if not (self.who and self.may and self.models):
            raise InvalidInputError(f"{where} has an empty who, may or models, expected some of each")
        for pattern in self.who:
            if pattern not in (ANYBODY, "*") and not pattern.startswith(KINDS):
                raise InvalidInputError(
                    f"{where}.who has {pattern!r}, expected {ANYBODY!r}, '*', or a name that begins with {', '.join(KINDS)}"
                )
        if self.requests_per_s is not None and not 0.001 <= self.requests_per_s <= 1e7:
            raise InvalidInputError(f"{where}.requests_per_s is {self.requests_per_s}, expected 0.001 to 10,000,000")
        if self.burst is not None and (self.requests_per_s is None or not 1 <= self.burst <= 1_000_000_000):
            raise InvalidInputError(f"{where}.burst is {self.burst}, expected 1 or more, beside requests_per_s")

    @property
    def at_once(self) -> float:
        """How many calls may come at once; infinite without a limit."""
        if self.requests_per_s is None:
            return inf
        return float(max(1, self.requests_per_s if self.burst is None else self.burst))


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may call.

    Attributes:
        rules: what is allowed, by a name of the rule's own.
        issuers: who signs the JSON Web Tokens that are accepted, by a name that their callers' names have.
        tokens: a file of static tokens, of which it holds the hashes (`penstock token new`).
        metrics: whether `/metrics` of the HTTP port is open to all, or takes the right to read all models.
    """

    rules: dict[str, RuleSettings] = field(default_factory=dict, hash=False)
    issuers: dict[str, IssuerSettings] = field(default_factory=dict, hash=False)
    tokens: Path | None = None
    metrics: Literal["open", "read"] = "read"

    def __post_init__(self) -> None:
        for name, issuer in self.issuers.items():
            if not name or not all(char.isalnum() or char in "-_." for char in name):
                raise InvalidInputError(f"access.issuers has {name!r}, expected letters, digits, '-', '_' and '.'")
            issuer.check(name)
        for name, rule in self.rules.items():
            rule.check(name)
        if (self.issuers or self.tokens is not None) and not self.rules:
            raise InvalidInputError("access names identities and has no rules, expected some: nobody could call")
        issuers = [issuer.issuer for issuer in self.issuers.values()]
        if len(set(issuers)) < len(issuers):
            raise InvalidInputError("two of access.issuers have the same issuer, expected each once")

    @property
    def is_on(self) -> bool:
        """Whether callers are asked who they are."""
        return bool(self.rules)
