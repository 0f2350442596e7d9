import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from penstock_server.access.credentials import Credentials, check_files
from penstock_server.access.jwt_tokens import Key, keys_of_set
from penstock_server.access.keeper import LAST_RETRY_S, RARELY_S, CredentialKeeper
from penstock_server.access.settings import AccessSettings, IssuerSettings, RuleSettings
from penstock_server.access.tokens import hash_of, line_of
from penstock_server.errors import InvalidInputError, UnavailableError
from tests.server.access.conftest import AUDIENCE, ISSUER, TokenIssuer, ec_key
from tests.server.conftest import FakeClock

RULES = {"r": RuleSettings(("*",), ("infer",))}


class World:
    def __init__(self, settings: AccessSettings) -> None:
        self.used: list[Credentials] = []
        self.asked: list[str] = []
        self.keys: tuple[Key, ...] | None = None
        self.clock = FakeClock()
        self.keeper = CredentialKeeper(settings, self.used.append, fetch=self.fetch, clock=self.clock)

    def fetch(self, address: str) -> tuple[Key, ...]:
        self.asked.append(address)
        if self.keys is None:
            raise UnavailableError("no answer")
        return self.keys

    def after(self, seconds: float) -> int:
        """How often the address was asked when so many seconds later is looked."""
        before = len(self.asked)
        self.clock.now += seconds
        self.keeper.look()
        return len(self.asked) - before


def replace_file(file: Path, text: str) -> None:
    """As tools that write secrets do: another file takes the name."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


def test_files_are_read_when_they_change(tmp_path: Path, issuer: TokenIssuer) -> None:
    tokens, keys = tmp_path / "tokens", tmp_path / "keys"
    tokens.write_text(line_of("a", "x"))
    keys.write_text(issuer.key_set)
    settings = AccessSettings(RULES, {"corp": IssuerSettings(ISSUER, AUDIENCE, jwks=str(keys))}, tokens)
    check_files(settings)
    world = World(settings)
    world.keeper.look()
    world.keeper.look()
    (first,) = world.used
    assert set(first.tokens) == {hash_of("x")}
    assert first.issuers[ISSUER].keys == keys_of_set(issuer.key_set, "s")
    replace_file(tokens, line_of("a", "another"))
    world.keeper.look()
    assert set(world.used[-1].tokens) == {hash_of("another")}
    issuer.keys = {"two": ec_key(2)}
    replace_file(keys, issuer.key_set)
    world.keeper.look()
    assert [key.id for key in world.used[-1].issuers[ISSUER].keys or ()] == ["two"]
    assert set(world.used[-1].tokens) == {hash_of("another")}


@pytest.mark.parametrize("text", ["broken", None])
def test_a_broken_file_leaves_what_was_known(tmp_path: Path, text: str | None) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(line_of("a", "x"))
    world = World(AccessSettings(RULES, tokens=tokens))
    world.keeper.look()
    if text is None:
        tokens.unlink()
    else:
        replace_file(tokens, text)
    with capture_logs() as logs:
        world.keeper.look()
        world.keeper.look()
    assert len(world.used) == 1
    assert len(logs) == 1
    replace_file(tokens, line_of("a", "mended"))
    world.keeper.look()
    assert set(world.used[-1].tokens) == {hash_of("mended")}
    replace_file(tokens, "broken")
    with pytest.raises(InvalidInputError):
        check_files(AccessSettings(RULES, tokens=tokens))


def test_an_address_is_asked_rarely(issuer: TokenIssuer) -> None:
    settings = AccessSettings(RULES, {"corp": IssuerSettings(ISSUER, AUDIENCE, jwks="https://i/keys", refresh_s=100.0)})
    world = World(settings)
    assert [world.after(seconds) for seconds in (0, 0.5, 0.5, 1, 1, 2, 2)] == [1, 0, 1, 0, 1, 0, 1]
    assert sum(world.after(1) for _ in range(600)) == pytest.approx(600 / LAST_RETRY_S, abs=4)
    assert world.used == []
    world.keys = keys_of_set(issuer.key_set, "s")
    assert world.after(LAST_RETRY_S) == 1
    assert [world.after(seconds) for seconds in (60, 30, 10)] == [0, 0, 1]
    assert len(world.used) == 1  # nothing has changed since


def test_a_key_that_is_not_known_has_it_asked_at_most_so_often(issuer: TokenIssuer) -> None:
    world = World(AccessSettings(RULES, {"corp": IssuerSettings(ISSUER, AUDIENCE, jwks="https://i/keys")}))
    world.keys = keys_of_set(issuer.key_set, "s")
    assert world.after(0) == 1
    world.keeper.want_keys("corp")
    assert [world.after(1) for _ in range(int(RARELY_S) + 3)].count(1) == 1
    issuer.keys["two"] = ec_key(2)
    world.keys = keys_of_set(issuer.key_set, "s")
    assert world.after(1) == 0
    world.keeper.want_keys("corp")
    assert world.after(RARELY_S) == 1
    assert len(world.used[-1].issuers[ISSUER].keys or ()) == 2
    # When it fails, what was known stays.
    world.keys = None
    world.keeper.want_keys("corp")
    assert world.after(RARELY_S) == 1
    assert len(world.used[-1].issuers[ISSUER].keys or ()) == 2


def test_its_thread_looks_by_itself_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_server.access.keeper.LOOK_S", 0.01)
    tokens = tmp_path / "tokens"
    tokens.write_text(line_of("a", "x"))
    changed = threading.Event()
    keeper = CredentialKeeper(
        AccessSettings(RULES, tokens=tokens), lambda found: changed.set() if hash_of("y") in found.tokens else None
    )
    keeper.start()
    replace_file(tokens, line_of("a", "y"))
    assert changed.wait(10)
    keeper.close()
    assert keeper._thread is not None
    keeper._thread.join(10)
    assert not keeper._thread.is_alive()
