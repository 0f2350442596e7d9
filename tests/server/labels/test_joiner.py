"""The joiner: what workers write is joined and counted once, whatever dies in between."""

import itertools
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.penstock_pb2 import FeedbackRequest
from penstock_server.labels import joiner as joiner_module
from penstock_server.labels import prediction_file, state
from penstock_server.labels import report as report_module
from penstock_server.labels.joiner import Joiner
from penstock_server.labels.keys import keys_of
from penstock_server.labels.label_file import LabelWriter
from penstock_server.labels.layout import CANARY, CHAMPION, NAMED, SHADOW
from penstock_server.labels.prediction_file import AnsweredVersion, PredictionWriter
from penstock_server.labels.report import ReportReader
from penstock_server.labels.ring import OwnRing
from penstock_server.labels.settings import LabelSettings, OwnLabelSettings
from penstock_server.labels.wire import PASSED_ON, ROW, labels_of, records_of

S = 1_000_000_000
ONE = AnsweredVersion("fraud", "1", "a", "class", ("no", "yes"))
TWO = AnsweredVersion("fraud", "2", "b", "class", ("no", "yes"))
FARES = AnsweredVersion("fares", "1", "c", "number")
SETTINGS = LabelSettings(enabled=True, maturity_s=60.0, keep_s=1000.0, wait_s=10.0, keep_bytes=16 * 1024**2)


class World:
    """A folder with workers and a joiner, on a clock of its own."""

    def __init__(self, folder: Path, settings: LabelSettings = SETTINGS) -> None:
        self.folder = folder
        self.settings = settings
        self.now_ns = 1_000_000 * S
        self.answers = [PredictionWriter(OwnRing(folder, prediction_file.KIND, slot, 4096)) for slot in range(2)]
        self.labels = [LabelWriter(folder, slot, places=4096) for slot in range(2)]
        self.joiner = self.new_joiner()

    def new_joiner(self) -> Joiner:
        return Joiner(self.folder, self.settings, self.now_ns)

    def answer(
        self,
        identifier: str,
        *predictions: float,
        version: AnsweredVersion = ONE,
        role: int = CHAMPION,
        weight: float = float("nan"),
        score: float = float("nan"),
        slot: int = 0,
    ) -> None:
        """A worker answers a request."""
        writer = self.answers[slot]
        records = np.zeros((len(predictions), 8), np.int64)
        numbers = records.view(np.float64)
        records[:, 0] = keys_of(version.model, [identifier.encode()]).astype(np.int64)
        records[:, 1] = self.now_ns
        records[:, 2] = writer.place_of(version) | role << 32
        records[:, 3] = np.arange(len(predictions))
        numbers[:, 4] = predictions
        numbers[:, 5] = score
        numbers[:, 6] = weight
        assert writer.own.ring.append(records)

    def label(
        self, identifier: str, label: Any, *, model: str = "fraud", row: int = 0, slot: int = 0, **fields: Any
    ) -> None:
        """A worker takes a label."""
        if label is not None:
            fields["classes" if isinstance(label, str) else "numbers"] = [label]
        request = FeedbackRequest(model=model, ids=[identifier], rows=[row], **fields)
        self.labels[slot].take(records_of(labels_of(request), lambda _: None, self.now_ns))

    def after(self, seconds: float) -> None:
        """Time passes, and the joiner takes what is there."""
        self.now_ns += round(seconds * S)
        while self.joiner.step(self.now_ns):
            pass

    def states(self, model: str = "fraud") -> dict[str, int]:
        return self.joiner.state.counted.model(model).states

    @property
    def totals(self) -> Any:
        return self.joiner.report(self.now_ns).totals


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_label_counts_when_its_answer_is_old_enough(world: World) -> None:
    world.answer("a", 1.0)
    world.answer("b", 1.0)
    world.after(0.5)
    world.label("a", "yes")
    world.label("b", "no", slot=1)
    world.after(2)
    assert world.states() == {"matched": 2}
    assert world.totals.of("fraud", "1").rows == 0
    world.after(60)
    found = world.totals.of("fraud", "1", "champion")
    assert (found.rows, found.labelled, found.wrong) == (2, 2, 1)


def test_a_late_label_is_joined_and_does_not_count(world: World) -> None:
    world.answer("a", 1.0)
    world.after(61)
    world.label("a", "yes")
    world.after(2)
    assert world.states() == {"late": 1}
    found = world.totals.of("fraud", "1")
    assert (found.rows, found.labelled) == (1, 0)


def test_of_an_answer_the_first_label_counts(world: World) -> None:
    world.answer("a", 1.0)
    for label in ("yes", "yes", "no", 1, "maybe"):
        world.label("a", label)
    world.after(2)
    world.label("a", "no")
    world.label("a", "yes")
    world.after(2)
    assert world.states() == {"matched": 1, "duplicate": 3, "conflicting": 2, "invalid": 1}
    world.after(60)
    assert world.totals.of("fraud", "1").wrong == 0


def test_a_label_waits_for_its_answer(world: World) -> None:
    world.label("a", "yes")
    world.label("never", "yes")
    world.after(2)
    assert world.states() == {}
    world.answer("a", 1.0, slot=1)
    world.after(0.5)
    world.after(2)
    assert world.states() == {"matched": 1}
    world.after(10)
    assert world.states() == {"matched": 1, "unknown": 1}


def test_each_row_of_a_request_has_its_label(world: World) -> None:
    world.answer("a", 1.0, 0.0, 1.0)
    world.label("a", "yes", row=1)
    world.label("a", "no", row=2)
    world.label("a", "no", row=3)
    world.after(2)
    world.after(65)
    found = world.totals.of("fraud", "1")
    assert (found.rows, found.labelled, found.wrong) == (3, 2, 2)
    assert world.states() == {"matched": 2, "unknown": 1}


def test_a_champion_and_its_shadow_are_compared_at_once(world: World) -> None:
    for turn, (champion, shadow, label) in enumerate(itertools.product((0.0, 1.0), (0.0, 1.0), ("no", "yes"))):
        world.answer(f"id-{turn}", champion)
        world.answer(f"id-{turn}", shadow, version=TWO, role=SHADOW, slot=1)
        world.label(f"id-{turn}", label)
    world.after(2)
    pair = world.totals.pair("fraud", "1", "2")
    assert (pair.both, pair.only_champion, pair.only_shadow, pair.neither) == (2, 2, 2, 2)
    world.after(65)
    assert (world.totals.of("fraud", "1").wrong, world.totals.of("fraud", "2", "shadow").wrong) == (4, 4)


def test_numbers_have_errors(world: World) -> None:
    world.answer("a", 10.0, version=FARES)
    world.answer("a", 13.0, version=replace_version(FARES, "2"), role=SHADOW)
    world.label("a", 12.0, model="fares")
    world.after(2)
    pair = world.totals.pair("fares", "1", "2")
    assert (pair.numbers, pair.difference_sum, pair.difference_squares) == (1, -1.0, 1.0)
    world.after(65)
    found = world.totals.of("fares", "1")
    assert (found.labelled, found.wrong, found.error_sum, found.error_squares) == (1, 0, 2.0, 4.0)
    quality = {each.version: each.quality for each in world.joiner.report(world.now_ns).qualities}
    assert quality["1"].mean_error == -2.0


def test_of_the_values_of_a_request_s_rows_the_first_compares_versions(world: World) -> None:
    world.answer("a", 1.0, 0.0, 1.0, version=TWO, role=CANARY, weight=0.5)
    for row, value in ((1, 5.0), (0, 2.0), (2, 9.0)):
        world.label("a", None, values=[value], row=row)
    world.after(2)
    world.after(65)
    found = world.totals.of("fraud", "2")
    assert (found.values, found.value_sum) == (3, 16.0)
    assert (found.request_values, found.request_value_sum, found.request_value_squares) == (1, 2.0, 4.0)


def replace_version(version: AnsweredVersion, number: str) -> AnsweredVersion:
    return AnsweredVersion(version.model, number, version.identity, version.kind, version.class_names)


def test_values_are_summed_by_the_share_of_the_traffic(world: World) -> None:
    for turn, weight in enumerate((0.05, 0.05, 0.25)):
        world.answer(f"id-{turn}", 1.0, version=TWO, role=CANARY, weight=weight)
        world.label(f"id-{turn}", None, values=[turn + 1.0])
    world.answer("named", 1.0, version=TWO, role=NAMED)
    world.label("named", "yes", values=[9.0])
    world.label("id-0", None, values=[7.0])
    world.after(2)
    world.after(65)
    assert world.states() == {"matched": 4, "conflicting": 1}
    found = {(each.role, each.weight): each.totals for each in world.totals.versions}
    assert found["canary", 0.05].values == 2
    assert found["canary", 0.05].value_sum == 3.0
    assert found["canary", 0.05].value_squares == 5.0
    assert found["canary", 0.25].value_sum == 3.0
    assert found["canary", 0.05].request_values == 2
    assert found["canary", 0.05].request_value_squares == 5.0
    assert found["canary", 0.25].labelled == 0
    assert found["named", None].value_sum == 9.0


def test_a_request_that_was_sent_again_counts_once(world: World) -> None:
    world.answer("a", 0.0)
    world.after(1)
    world.answer("a", 1.0)
    world.label("a", "yes")
    world.after(2)
    world.after(65)
    found = world.totals.of("fraud", "1")
    assert (found.rows, found.labelled, found.wrong) == (2, 1, 0)


def test_models_may_count_at_ages_of_their_own(tmp_path: Path) -> None:
    own = replace(SETTINGS, models={"fares": OwnLabelSettings(maturity_s=5.0)})
    world = World(tmp_path, own)
    world.answer("a", 1.0)
    world.answer("a", 1.0, version=FARES)
    world.after(8)
    assert world.totals.of("fares", "1").rows == 1
    assert world.totals.of("fraud", "1").rows == 0
    assert world.totals.maturity_s == {"fares": 5.0, "fraud": 60.0}
    world.after(60)
    assert world.totals.of("fraud", "1").rows == 1


def test_labels_of_peers_are_counted_apart(world: World) -> None:
    world.answer("a", 1.0)
    records = records_of(
        labels_of(FeedbackRequest(model="fraud", ids=["a"], classes=["yes"])), lambda _: None, world.now_ns
    )
    records[:, ROW] |= PASSED_ON
    world.labels[0].take(records)
    world.after(2)
    assert world.joiner.state.counted.model("fraud").from_peers == {"matched": 1}
    assert world.states() == {}


def test_old_answers_are_deleted_and_their_labels_unknown(world: World) -> None:
    world.answer("a", 1.0)
    world.after(70)
    world.after(1000)
    assert world.joiner.report(world.now_ns).kept.answers == 0
    world.label("a", "yes")
    world.after(2)
    world.after(12)
    assert world.states() == {"unknown": 1}


def test_answers_that_go_before_they_count_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path, replace(SETTINGS, maturity_s=900.0))
    world.joiner._store.capacity = 1 << 10
    for turn in range(4):
        world.answer(f"id-{turn}", *[1.0] * 1000)
        world.after(0.1)
    world.joiner._store._keep_bytes = 1
    world.after(1)
    assert world.joiner.report(world.now_ns).kept.early > 0


def test_qualities_are_there_again_after_a_restart(world: World) -> None:
    generator = np.random.default_rng(3)
    for turn in range(300):
        score = generator.random()
        world.answer(f"id-{turn}", float(score > 0.5), score=score)
        world.label(f"id-{turn}", "yes" if generator.random() < score else "no")
    world.after(2)
    world.after(65)
    before = world.joiner.report(world.now_ns)
    (quality,) = before.qualities
    assert quality.quality.rows == 300
    assert quality.quality.auc is not None
    assert quality.quality.auc.value > 0.7
    again = world.new_joiner().report(world.now_ns)
    assert again == before


def test_delays_are_counted(world: World) -> None:
    world.answer("a", 1.0)
    world.answer("b", 1.0)
    world.after(3)
    world.label("a", "yes")
    world.after(30)
    world.label("b", "yes")
    world.after(2)
    counts = world.joiner.state.counted.model("fraud")
    assert counts.delays[:4] == [0, 1, 0, 1]
    assert counts.delay_sum_s == pytest.approx(36.0, abs=1e-3)


def test_a_state_that_cannot_be_read_is_put_aside(world: World) -> None:
    world.answer("a", 1.0)
    world.after(1)
    (world.folder / state.STATE).write_bytes(b"half")
    again = world.new_joiner()
    assert again.report(world.now_ns).kept.answers == 0
    assert (world.folder / "state.damaged").exists()


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


EVENTS = st.one_of(
    st.tuples(st.just("answer"), st.integers(0, 9), st.integers(0, 1), st.sampled_from([CHAMPION, SHADOW])),
    st.tuples(st.just("label"), st.integers(0, 9), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("time"), st.integers(1, 40), st.just(0), st.just(0)),
    st.tuples(st.just("kill"), st.integers(1, 12), st.just(0), st.just(0)),
)
WRITES = (("_store", "write"), ("_store", "append"), ("_waiting", "done"), ("_waiting", "add"), ("_store", "sweep"))


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@example(
    [("label", 2, 0, 0), ("time", 1, 0, 0), ("answer", 2, 0, 0), ("kill", 1, 0, 0), ("answer", 2, 0, 2)]
)  # the shadow's answer comes after the end of a joiner that had a label wait for it
@example(
    [("label", 0, 0, 0), ("time", 1, 0, 0), ("kill", 1, 0, 0), ("answer", 0, 0, 0)]
)  # an answer in the last moment
@example(
    [
        *(("label", 0, 0, 0), ("time", 1, 0, 0), ("kill", 1, 0, 0)),
        *(("answer", 0, 0, 0), ("label", 0, 1, 0), ("time", 1, 0, 0)),
    ]
)  # a second label whose turn comes before that of the first, which waited
@given(st.lists(EVENTS, max_size=40))
def test_kills_change_nothing_of_what_is_counted(tmp_path_factory: pytest.TempPathFactory, events: list[Any]) -> None:
    """Two worlds with the same events; in one the joiner is killed before or after some write, and another goes on."""
    calm, killed = (World(tmp_path_factory.mktemp(name)) for name in ("calm", "killed"))
    for event, number, choice, role in (*events, ("time", 40, 0, 0), ("time", 40, 0, 0), ("time", 40, 0, 0)):
        for world in (calm, killed):
            if event == "answer":
                version = ONE if role == CHAMPION else TWO
                world.answer(f"id-{number}", float(choice), version=version, role=role, slot=choice)
            elif event == "label":
                world.label(f"id-{number}", ("no", "yes", "maybe")[choice], slot=number % 2)
            elif event == "time":
                world.after(number)
        if event == "kill":
            kill_at_write(killed, number)
            calm.after(0)
    assert killed.joiner.state.counted == calm.joiner.state.counted
    assert killed.totals.versions == calm.totals.versions
    assert Counter(killed.states()) == Counter(calm.states())


def kill_at_write(world: World, number: int) -> None:
    """Kills the joiner at so many writes of a step, then has a new one go on."""
    left = number

    def dying(do: Any) -> Any:
        def write(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError
            done = do(*arguments, **options)
            left -= 1
            if left == 0:
                raise KilledError
            return done

        return write

    for part, name in WRITES:
        owner = getattr(world.joiner, part)
        setattr(owner, name, dying(getattr(owner, name)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joiner_module.state, "save", dying(state.save))
        patch.setattr(joiner_module.state, "intend", dying(state.intend))
        with suppress(KilledError):
            world.after(0)
    world.joiner = world.new_joiner()
    world.after(0)


def test_answers_count_once_when_the_age_changes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.answer("a", 1.0)
    world.after(65)
    world.answer("b", 1.0)
    world.after(1)
    world.settings = replace(SETTINGS, maturity_s=10.0)
    world.joiner = world.new_joiner()
    world.answer("c", 1.0)
    world.after(65)
    # The one in between had not counted, and is not old enough at the new age by any label: it does not count.
    assert world.totals.of("fraud", "1").rows == 2


def test_numbers_of_versions_that_nobody_keeps_are_given_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joiner_module, "MOST_SUBJECTS", 2)
    world.answer("a", 1.0)
    world.answer("a", 1.0, version=TWO)
    world.answer("a", 1.0, version=FARES)  # no number is left
    world.after(1)
    assert world.joiner.report(world.now_ns).kept.answers == 2
    world.after(2000)
    world.answer("b", 1.0, version=FARES)
    world.label("b", 3.0, model="fares")
    world.after(2)
    world.after(65)
    assert world.totals.of("fares", "1").labelled == 1
    assert len(world.joiner.state.subjects) == 2


class TakingPeers:
    """Peers that take everything at once, or nothing."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.offered: list[Any] = []
        self._taken: list[Any] = []

    def offer(self, places: Any, turns: Any, records: Any) -> bool:
        self.offered.append(records)
        if self.takes:
            self._taken.append((places, turns))
        return True

    def taken(self) -> list[Any]:
        taken, self._taken = self._taken, []
        return taken

    def counts(self) -> dict[str, Any]:
        return {}


def with_peers(world: World, peers: TakingPeers) -> None:
    world.joiner = Joiner(world.folder, world.settings, world.now_ns, peers)  # type: ignore[arg-type]


@pytest.mark.parametrize(("takes", "state"), [(True, "passed_on"), (False, "unknown")])
def test_a_label_without_an_answer_goes_to_peers_once(world: World, takes: bool, state: str) -> None:
    peers = TakingPeers(takes=takes)
    with_peers(world, peers)
    world.answer("here", 1.0)
    world.label("here", "yes")
    world.label("there", "yes")
    world.after(1.5)
    assert peers.offered == []
    world.after(1.5)
    world.after(1.5)
    (offered,) = peers.offered
    assert len(offered) == 1
    assert offered[0, 0] == keys_of("fraud", [b"there"]).astype(np.int64)[0]
    world.after(10)
    assert world.states() == {"matched": 1, state: 1}


def test_labels_of_peers_are_not_passed_on(world: World) -> None:
    peers = TakingPeers()
    with_peers(world, peers)
    request = FeedbackRequest(model="fraud", ids=["there"], classes=["yes"])
    records = records_of(labels_of(request), lambda _: None, world.now_ns)
    records[:, ROW] |= PASSED_ON
    world.labels[0].take(records)
    world.after(2)
    world.after(2)
    world.after(12)
    assert peers.offered == []
    assert world.joiner.state.counted.model("").from_peers == {"unknown": 1}


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), 1e300])
def test_an_answer_that_is_no_number_leaves_the_totals_finite(world: World, answer: float) -> None:
    for identifier, prediction in (("a", answer), ("b", 3.0)):
        world.answer(identifier, prediction, version=FARES)
        world.answer(identifier, 1.0, version=replace_version(FARES, "2"), role=SHADOW)
        world.label(identifier, 2.0, model="fares", values=[1e100])
    world.after(2)
    world.after(65)
    found = world.totals.of("fares", "1")
    assert (found.labelled, found.wrong, found.error_sum, found.values) == (2, 1, 1.0, 2)
    assert np.isfinite(found.value_squares)
    assert world.totals.pair("fares", "1", "2").numbers == 1
    # What the server reads is whole: JSON has no word for what is infinite.
    report_module.write(world.folder, world.joiner.report(world.now_ns))
    assert ReportReader(world.folder).report() == world.joiner.report(world.now_ns)
