import time
from collections.abc import Sequence
from math import inf

import pytest
from structlog.testing import capture_logs

from penstock_server.access.credentials import Credentials, credentials_of
from penstock_server.access.gate import AccessGate
from penstock_server.access.identity import STRANGER, Identity
from penstock_server.access.jwt_tokens import keys_of_set
from penstock_server.access.settings import AccessSettings, IssuerSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.errors import DeniedError, LimitedError, NotReadyError, PenstockError, UnauthenticatedError
from tests.server.access.conftest import AUDIENCE, ISSUER, TokenIssuer, ec_key
from tests.server.conftest import FakeClock

SETTINGS = AccessSettings(
    {
        "shop": RuleSettings(("token:shop", "jwt:corp:shop", "uri:spiffe://corp/shop"), ("infer",), ("shop-*",)),
        "slow": RuleSettings(("token:slow",), ("infer",), requests_per_s=1),
        "open": RuleSettings(("anybody",), ("read",), ("demo",)),
    },
    {"corp": IssuerSettings(ISSUER, AUDIENCE, jwks="https://issuer.example/keys")},
)
TOKENS = {
    hash_of("good"): Identity(("token:shop",), 1000.0),
    hash_of("slow"): Identity(("token:slow",)),
}


def gate(issuer: TokenIssuer | None = None, clock: FakeClock | None = None) -> AccessGate:
    made = AccessGate(SETTINGS, want_keys=WANTED.append, wall=clock or time.time)
    keys = {} if issuer is None else {"corp": keys_of_set(issuer.key_set, "s")}
    made.use(credentials_of(SETTINGS, TOKENS if clock else {}, keys))
    return made


WANTED: list[str] = []


def ask(gate: AccessGate, authorization: Sequence[str] = (), peer: tuple[str, ...] = (), model: str = "shop-1") -> str:
    caller = gate.caller(authorization, peer)
    gate.check(caller, "infer", model)
    return caller.identity.name


def test_a_token_a_certificate_and_a_stranger(issuer: TokenIssuer) -> None:
    at = gate(issuer, FakeClock())
    assert ask(at, ["Bearer good"]) == "token:shop"
    assert ask(at, ["bEARER   good "]) == "token:shop"
    assert ask(at, (), ("uri:spiffe://corp/shop", "dns:shop")) == "uri:spiffe://corp/shop"
    assert at.caller((), ()).identity is STRANGER
    at.check(at.caller((), ()), "read", "demo")
    with pytest.raises(UnauthenticatedError):
        ask(at)
    with pytest.raises(DeniedError, match=r"^the caller has no right to infer here$"):
        ask(at, ["Bearer good"], model="other")
    with pytest.raises(DeniedError):
        ask(at, (), ("dns:shop",))


def test_a_token_goes_before_the_certificate(issuer: TokenIssuer) -> None:
    at = gate(issuer, FakeClock())
    with pytest.raises(UnauthenticatedError):
        ask(at, ["Bearer bad"], ("uri:spiffe://corp/shop",))


@pytest.mark.parametrize(
    "values",
    [
        [""], ["good"], ["Basic good"], ["Bearer"], ["Bearer "], ["Bearer good", "Bearer good"], ["Bearer x"], ["Bearergood"],
        ["Bearer eyJ.eyJ.x"], ["Bearer \xff\x00"], ["Bearer good\x00"], ["Bearer " + "x" * 20_000],
    ],
)  # fmt: skip
def test_all_who_are_not_known_hear_the_same(values: list[str], issuer: TokenIssuer) -> None:
    heard = set()
    for shown in (values, []):
        with pytest.raises(UnauthenticatedError) as refused:
            ask(gate(issuer, FakeClock()), shown)
        heard.add(str(refused.value))
    assert len(heard) == 1


def test_a_token_ends() -> None:
    clock = FakeClock(now=999.0)
    at = gate(clock=clock)
    assert ask(at, ["Bearer good"])
    clock.now = 1000.0
    with pytest.raises(UnauthenticatedError):
        ask(at, ["Bearer good"])
    clock.now = 0.0
    assert ask(at, ["Bearer good"])


def test_a_signed_token_is_checked_once(issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    at = gate(issuer)
    token = issuer.token()
    assert ask(at, [f"Bearer {token}"]) == "jwt:corp:shop"
    monkeypatch.setattr("penstock_server.access.jwt_tokens.verified", None)
    assert ask(at, [f"Bearer {token}"]) == "jwt:corp:shop"


def test_what_is_no_longer_known_is_refused_at_once(issuer: TokenIssuer) -> None:
    at, token = gate(issuer), issuer.token()
    assert ask(at, [f"Bearer {token}"])
    at.use(credentials_of(SETTINGS, {}, {"corp": keys_of_set(TokenIssuer({"two": ec_key(2)}).key_set, "s")}))
    with pytest.raises(UnauthenticatedError):
        ask(at, [f"Bearer {token}"])


def test_a_key_that_is_not_known_is_wanted(issuer: TokenIssuer) -> None:
    WANTED.clear()
    at = gate(issuer)
    issuer.keys["new"] = issuer.keys["one"]
    with pytest.raises(UnauthenticatedError):
        ask(at, [f"Bearer {issuer.token('new')}"])
    assert WANTED == ["corp"]
    with pytest.raises(NotReadyError):
        ask(gate(), [f"Bearer {issuer.token()}"])


def test_who_has_a_limit_is_counted() -> None:
    at = gate(clock=FakeClock())
    assert ask(at, ["Bearer slow"])
    with pytest.raises(LimitedError) as refused:
        ask(at, ["Bearer slow"])
    assert 0 < refused.value.retry_after_s <= 1
    with pytest.raises(DeniedError):
        at.check(at.caller(["Bearer slow"], ()), "read", "m")


def test_the_log_says_why_once_a_second_and_nothing_of_the_token() -> None:
    clock = FakeClock()
    at = gate(clock=clock)
    with capture_logs() as logs:
        for pause in (0, 0.1, 1.0):
            clock.now += pause
            with pytest.raises(PenstockError):
                ask(at, ["Bearer hunter2"])
    assert len(logs) == 2
    assert "hunter2" not in str(logs)


def test_only_so_many_callers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_server.access.gate.MOST_KNOWN", 2)
    at = AccessGate(SETTINGS)
    at.use(Credentials({hash_of(str(n)): Identity(("token:shop",), inf) for n in range(9)}))
    for number in range(9):
        assert ask(at, [f"Bearer {number}"])
        at.caller((), (f"dns:{number}",))
    assert len(at._by_token) <= 2
    assert len(at._by_names) <= 2
