import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan
from penstock_server.sources.combined_source import CombinedSource, LastKnownState, SourceState, combine
from penstock_server.sources.source import Desired, VersionFiles

ONE, TWO = TrafficPlan("1"), TrafficPlan("2")


class Puppet:
    """A source that says what it is told to, or that it is away."""

    def __init__(self, name: str, desired: Desired | None = None) -> None:
        self.name = name
        self.desired = desired

    async def poll(self) -> Desired:
        if self.desired is None:
            raise UnavailableError(f"{self.name} does not answer")
        return self.desired

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        return VersionFiles(Path(self.name, model, version), identity)

    async def close(self) -> None:
        pass


async def poll(combined: CombinedSource) -> Desired:
    """Polls every member once."""
    for member in combined.members:
        await member.poll()
    return combined.combined()


async def folder(combined: CombinedSource, model: str, version: str) -> Path:
    return (await combined.fetch(model, version, "id")).folder


@pytest.mark.parametrize(
    ("first", "second", "models", "owners", "problems"),
    [
        (Desired({"a": ONE}), Desired({"b": TWO}), {"a": ONE, "b": TWO}, {"a": 0, "b": 1}, {}),
        (
            Desired({"a": ONE}),
            Desired({"a": TWO}),
            {"a": ONE},
            {"a": 0},
            {"a": "F and S both name it; the first is followed"},
        ),
        (Desired({"a": TrafficPlan()}, {"a": "p"}), Desired({"a": TWO}), {"a": TWO}, {"a": 1}, {"a": "p"}),
        (Desired({"a": ONE}), Desired({"a": TrafficPlan()}, {"a": "p"}), {"a": ONE}, {"a": 0}, {"a": "p"}),
        (Desired({}, {"a": "p"}), Desired({}, {"a": "q"}), {}, {}, {"a": "p; q"}),
    ],
)
def test_desired_states_are_joined(
    first: Desired,
    second: Desired,
    models: dict[str, TrafficPlan],
    owners: dict[str, int],
    problems: dict[str, str],
) -> None:
    desired, found_owners = combine([("F", first), ("S", second)])
    assert (desired.models, found_owners, desired.problems) == (models, owners, problems)


async def test_files_come_from_the_source_that_is_followed() -> None:
    combined = CombinedSource([Puppet("F", Desired({"a": ONE})), Puppet("S", Desired({"a": TWO, "b": TWO}))])
    assert combined.name == "F + S"
    (await poll(combined))
    assert await folder(combined, "a", "1") == Path("F/a/1")
    assert await folder(combined, "b", "2") == Path("S/b/2")
    with pytest.raises(NotFoundError, match="model 'c' is not desired by F"):
        await folder(combined, "c", "1")


async def test_a_source_that_goes_away_keeps_its_state_and_hurts_no_other() -> None:
    began_s = time.time()
    first, second = Puppet("F", Desired({"a": ONE})), Puppet("S", Desired({"b": ONE}))
    combined = CombinedSource([first, second])
    (await poll(combined))
    first.desired, second.desired = None, Desired({"b": TWO})
    assert (await poll(combined)).models == {"a": ONE, "b": TWO}
    assert combined.states == (SourceState("F", "away", "F does not answer"), SourceState("S", "answers"))
    away, answers = (state.answered_s for state in combined.states)
    assert began_s <= (away or 0) <= (answers or 0) <= time.time()
    first.desired = Desired({"a": TrafficPlan()})
    assert (await poll(combined)).models == {"a": TrafficPlan(), "b": TWO}
    assert combined.states[0] == SourceState("F", "answers")


async def test_a_source_that_never_answered_leaves_the_rest() -> None:
    combined = CombinedSource([Puppet("F"), Puppet("S", Desired({"b": ONE}))])
    assert combined.states == (SourceState("F", "starting"), SourceState("S", "starting"))
    assert [state.answered_s for state in combined.states] == [None, None]
    assert (await poll(combined)).models == {"b": ONE}


async def test_nobody_answering_and_nothing_known_is_told_with_every_reason() -> None:
    combined = CombinedSource([Puppet("F"), Puppet("S")])
    assert await poll(combined) == Desired()
    assert [state.reason for state in combined.states] == ["F does not answer", "S does not answer"]


async def test_a_source_is_awaited_until_it_answers_or_its_last_state_is_recalled(tmp_path: Path) -> None:
    first, second = Puppet("F", Desired({"a": ONE})), Puppet("S")
    combined = CombinedSource([first, second], last_known=LastKnownState(tmp_path))
    assert combined.unanswered == ("F", "S")
    await poll(combined)
    assert combined.unanswered == ("S",)
    second.desired = Desired()
    await poll(combined)
    assert combined.unanswered == ()
    first.desired = second.desired = None
    again = CombinedSource([first, second], last_known=LastKnownState(tmp_path))
    again.recall()
    assert again.unanswered == ()


async def test_a_list_that_loses_models_is_believed_when_it_says_so_again(tmp_path: Path) -> None:
    full = Desired({"a": ONE, "b": TWO}, identities={"a": {"1": "x"}, "b": {"2": "y"}})
    source = Puppet("F", full)
    combined = CombinedSource([source], last_known=LastKnownState(tmp_path))
    await poll(combined)
    for lost in (Desired(), Desired({"b": TWO}, identities={"b": {"2": "y"}})):
        source.desired = lost
        assert await poll(combined) == full
        assert "no longer lists 'a'" in combined.states[0].reason
        assert LastKnownState(tmp_path).recall("F") == full
        assert await poll(combined) == lost
        assert combined.states == (SourceState("F", "answers"),)
        source.desired = full
        assert await poll(combined) == full


async def test_a_list_that_loses_models_once_costs_nothing() -> None:
    source = Puppet("F", Desired({"a": ONE}))
    combined = CombinedSource([source])
    await poll(combined)
    for _ in range(3):
        source.desired = Desired()
        assert (await poll(combined)).models == {"a": ONE}
        source.desired = Desired({"a": ONE})
        assert (await poll(combined)).models == {"a": ONE}


async def test_an_alias_taken_away_is_believed_at_once() -> None:
    source = Puppet("F", Desired({"a": ONE}))
    combined = CombinedSource([source])
    await poll(combined)
    source.desired = Desired({"a": TrafficPlan()}, {"a": "registered, not served"})
    assert (await poll(combined)).models == {"a": TrafficPlan()}


async def test_identities_come_from_the_source_that_is_followed() -> None:
    first = Puppet("F", Desired({"a": ONE}, identities={"a": {"1": "of F"}}))
    second = Puppet("S", Desired({"a": ONE, "b": ONE}, identities={"a": {"1": "of S"}, "b": {"1": "b"}}))
    combined = CombinedSource([first, second])
    assert (await poll(combined)).identities == {"a": {"1": "of F"}, "b": {"1": "b"}}
    first.desired = Desired({"a": TrafficPlan()})
    assert (await poll(combined)).identities == {"a": {"1": "of S"}, "b": {"1": "b"}}


def test_what_all_servers_desired_last_is_known(tmp_path: Path) -> None:
    last_known = LastKnownState(tmp_path)
    last_known.remember("F", Desired({"a": ONE}))
    last_known.remember("S", Desired({"b": TWO}))
    assert sorted(str(desired.models) for desired in last_known.all(newer_than_s=0.0)) == sorted(
        [str({"a": ONE}), str({"b": TWO})]
    )
    old = last_known._path("F")
    os.utime(old, (0, 0))
    assert [desired.models for desired in last_known.all(newer_than_s=1.0)] == [{"b": TWO}]
    last_known.confirm("F")
    assert len(list(last_known.all(newer_than_s=1.0))) == 2
    old.write_text("{")
    assert [desired.models for desired in last_known.all(newer_than_s=0.0)] == [{"b": TWO}]


async def test_a_model_that_cannot_be_told_about_keeps_its_former_plan() -> None:
    source = Puppet("F", Desired({"a": ONE, "b": ONE}))
    combined = CombinedSource([source])
    (await poll(combined))
    source.desired = Desired({"b": TWO}, {"a": "forbidden"})
    for _ in range(2):
        assert (await poll(combined)) == Desired({"a": ONE, "b": TWO}, {"a": "forbidden"})


async def test_a_restart_goes_on_from_the_last_known_state(tmp_path: Path) -> None:
    sources = [Puppet("F", Desired({"a": ONE})), Puppet("S", Desired())]
    await poll(CombinedSource(sources, last_known=LastKnownState(tmp_path)))
    again = CombinedSource([Puppet("F"), Puppet("S", Desired({"b": TWO}))], last_known=LastKnownState(tmp_path))
    assert again.recall().models == {"a": ONE}
    assert await folder(again, "a", "1") == Path("F/a/1")
    assert (await poll(again)).models == {"a": ONE, "b": TWO}


def test_nothing_known_is_nothing_desired(tmp_path: Path) -> None:
    assert CombinedSource([Puppet("F")], last_known=LastKnownState(tmp_path)).recall() == Desired()
    assert CombinedSource([Puppet("F")]).recall() == Desired()


async def test_a_damaged_file_is_reported_and_replaced(tmp_path: Path) -> None:
    source = Puppet("F", Desired({"a": ONE}))
    await poll(CombinedSource([source], last_known=LastKnownState(tmp_path)))
    path = only_file(tmp_path)
    path.write_text("{")
    combined = CombinedSource([source], last_known=LastKnownState(tmp_path))
    assert combined.recall() == Desired()
    assert "is damaged and ignored" in combined.states[0].reason
    (await poll(combined))
    assert combined.states == (SourceState("F", "answers"),)
    assert LastKnownState(tmp_path).recall("F") == source.desired


async def test_a_file_that_cannot_be_written_is_reported_and_serving_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    combined = CombinedSource([Puppet("F", Desired({"a": ONE}))], last_known=LastKnownState(tmp_path / "file"))
    for _ in range(2):
        assert (await poll(combined)).models == {"a": ONE}
        assert combined.states[0].state == "answers"
        assert "cannot be written" in combined.states[0].reason


async def test_the_file_is_written_only_when_something_changed(tmp_path: Path) -> None:
    combined = CombinedSource([Puppet("F", Desired({"a": ONE}))], last_known=LastKnownState(tmp_path))
    (await poll(combined))
    path = only_file(tmp_path)
    path.unlink()
    (await poll(combined))
    assert not path.exists()


def test_a_source_is_needed() -> None:
    with pytest.raises(InvalidInputError, match="nowhere to get models from"):
        CombinedSource([])


STATE = Desired(models={"m/../é": TrafficPlan("1", (Arm("2", 0.25),), (ShadowArm("3"),))}, problems={"x": "y"})


def only_file(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


def test_each_source_has_its_own_file(tmp_path: Path) -> None:
    last_known = LastKnownState(tmp_path)
    last_known.remember("mlflow http://../a", STATE)
    last_known.remember("directory /b", Desired())
    assert LastKnownState(tmp_path).recall("mlflow http://../a") == STATE
    assert LastKnownState(tmp_path).recall("directory /b") == Desired()
    assert LastKnownState(tmp_path).recall("directory /c") is None


@given(raw=st.binary(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_ignored_with_a_reason(raw: bytes, tmp_path: Path) -> None:
    last_known = LastKnownState(tmp_path)
    last_known.remember("s", STATE)
    only_file(tmp_path).write_bytes(raw)
    with pytest.raises(InvalidInputError, match="is damaged and ignored"):
        last_known.recall("s")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_or_changed_file_raises_nothing_else(data: st.DataObject, tmp_path: Path) -> None:
    last_known = LastKnownState(tmp_path)
    last_known.remember("s", STATE)
    raw = bytearray(only_file(tmp_path).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    only_file(tmp_path).write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(InvalidInputError):
        last_known.recall("s")


def test_a_weight_out_of_range_is_damage(tmp_path: Path) -> None:
    last_known = LastKnownState(tmp_path)
    last_known.remember("s", STATE)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"0.25", b"2.5"))
    with pytest.raises(InvalidInputError, match="damaged and ignored: a canary's weight is 250 percent"):
        last_known.recall("s")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written"):
        LastKnownState(tmp_path / "file").remember("s", STATE)


def test_a_file_of_the_first_release_is_read(tmp_path: Path) -> None:
    last_known = LastKnownState(tmp_path)
    last_known.remember("s", Desired())
    only_file(tmp_path).write_text(
        '{"source":"s","desired":{"models":{"a":{"champion":"1","canary":"2","canary_weight":0.25,"shadow":null},'
        '"b":{"champion":null,"canary":null,"canary_weight":0.0,"shadow":null}},"problems":{"b":"why"}},"format":1}'
    )
    models = {"a": TrafficPlan("1", (Arm("2", 0.25),)), "b": TrafficPlan()}
    assert last_known.recall("s") == Desired(models, {"b": "why"})
