import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from penstock.names import VersionKey
from penstock_server.control import airlock
from penstock_server.control.airlock import Airlock
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.verdict import LoadSettings, Trial, TrialLimits, Verdict

TIMEOUT_S = 30.0
PASSED, BROKEN = Verdict(batching="rows"), Verdict("a golden request gets another answer")


def trial(version: str, identity: str = "") -> Trial:
    return Trial("m", version, identity, "/versions", LoadSettings())


class Gate:
    """An airlock whose trials end when the test says so.

    Attributes:
        log: "begins" and "stops" of each version's trials.
    """

    def __init__(self, cache: Path) -> None:
        self.log: list[str] = []
        self.errors: list[Exception] = []
        self._ends: dict[VersionKey, asyncio.Future[Verdict]] = {}
        self._changes = asyncio.Queue[None]()
        self.proven = ProvenVersions(TrialLimits(1024, 10.0), cache)
        self.airlock = Airlock(self._run, self.proven, changed=lambda: self._changes.put_nowait(None))

    async def _run(self, trial: Trial) -> Verdict:
        if self.errors:
            raise self.errors.pop()
        self.log.append(f"{trial.version} begins")
        end = self._ends[trial.key] = asyncio.get_running_loop().create_future()
        try:
            return await end
        except asyncio.CancelledError:
            self.log.append(f"{trial.version} stops")
            raise

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.wait_for(asyncio.sleep(0.001), TIMEOUT_S)

    async def trying(self, *versions: str) -> None:
        await self.until(lambda: self.airlock._trying == {("m", version) for version in versions})
        await self.until(lambda: all(f"{version} begins" in self.log for version in versions))

    async def ends(self, version: str, verdict: Verdict) -> None:
        self._ends["m", version].set_result(verdict)
        await self.until(lambda: not self.airlock.is_trying(("m", version)))

    def verdict(self, version: str, identity: str = "") -> Verdict | None:
        return self.airlock.verdict(("m", version), identity)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    made = Gate(tmp_path)
    yield made
    await asyncio.wait_for(made.airlock.close(), TIMEOUT_S)


async def test_versions_are_tried_once_two_at_a_time_in_their_order(gate: Gate) -> None:
    trials = [trial(version) for version in "1234"]
    for _ in range(2):
        gate.airlock.require(trials)
    await gate.trying("1", "2")
    await gate.ends("2", PASSED)
    await gate.trying("1", "3")
    await gate.ends("1", BROKEN)
    await gate.trying("3", "4")
    await gate.ends("3", PASSED)
    await gate.ends("4", PASSED)
    gate.airlock.require(trials)
    assert [gate.verdict(version) for version in "1234"] == [BROKEN, PASSED, PASSED, PASSED]
    assert gate.log == [f"{version} begins" for version in "1234"]
    assert gate.airlock.failures == 1


async def test_the_order_may_change_while_versions_wait(gate: Gate) -> None:
    gate.airlock.require([trial(version) for version in "1234"])
    await gate.trying("1", "2")
    gate.airlock.require([trial(version) for version in "4123"])
    await gate.ends("1", PASSED)
    await gate.trying("2", "4")
    assert gate.log == ["1 begins", "2 begins", "4 begins"]


async def test_a_version_that_is_not_wanted_any_more_is_stopped(gate: Gate) -> None:
    gate.airlock.require([trial("1"), trial("2")])
    await gate.trying("1", "2")
    gate.airlock.require([trial("2")])
    await gate.trying("2")
    assert gate.log[-1] == "1 stops"
    assert gate.verdict("1") is None


async def test_other_files_are_tried_anew(gate: Gate) -> None:
    gate.airlock.require([trial("1", "x")])
    await gate.trying("1")
    await gate.ends("1", BROKEN)
    gate.airlock.require([trial("1", "y")])
    assert gate.verdict("1", "x") is None
    await gate.trying("1")
    assert gate.verdict("1", "y") is None
    await gate.ends("1", PASSED)
    assert gate.verdict("1", "y") == PASSED


async def test_what_passed_before_a_restart_is_not_tried_again(gate: Gate) -> None:
    gate.proven.remember(trial("1"), PASSED)
    gate.airlock.require([trial("1"), trial("2")])
    await gate.trying("2")
    await gate.until(lambda: gate.verdict("1") == PASSED)
    assert gate.log == ["2 begins"]


async def test_what_did_not_pass_before_a_restart_is_out_while_it_is_tried_again(gate: Gate) -> None:
    gate.proven.remember(trial("1"), BROKEN)
    gate.airlock.require([trial("1")])
    await gate.trying("1")
    assert gate.verdict("1") == BROKEN
    await gate.ends("1", PASSED)
    assert gate.verdict("1") == PASSED
    await gate.until(lambda: gate.proven.recall(trial("1")) == PASSED)


async def test_a_trial_that_cannot_be_started_says_nothing_about_the_version(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airlock, "RETRY_S", 0.0)
    gate.errors = [RuntimeError("a bug"), OSError(24, "Too many open files")]
    gate.airlock.require([trial("1")])
    await gate.trying("1")
    assert gate.verdict("1") is None
    await gate.ends("1", PASSED)
    assert gate.verdict("1") == PASSED


async def test_a_close_stops_all_trials(gate: Gate) -> None:
    gate.airlock.require([trial(version) for version in "123"])
    await gate.trying("1", "2")
    await asyncio.wait_for(gate.airlock.close(), TIMEOUT_S)
    assert sorted(gate.log[2:]) == ["1 stops", "2 stops"]
