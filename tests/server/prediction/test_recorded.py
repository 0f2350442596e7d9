"""Answers to requests with ids are recorded, whichever way they are given; `test_plain_equal` compares two of these ways."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock_server.errors import ModelFailedError
from penstock_server.features.pipeline import Refusal
from penstock_server.labels import layout as record_layout
from penstock_server.labels import prediction_file
from penstock_server.labels.keys import key_of
from penstock_server.labels.prediction_file import NAMED, AnsweredVersion, Route
from penstock_server.labels.ring import rings_in
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.servable import Outputs
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.plain import layout
from penstock_server.prediction.block_copies import BlockCopy
from penstock_server.prediction.encode import encoded_id, id_of
from penstock_server.prediction.outputs import LabelOutput, Largest, NamedLabels, OutputReader
from penstock_server.prediction.records import PredictionReader, RecordFiles, prediction_reader
from penstock_server.prediction.shadow import ShadowTarget
from penstock_server.prediction.shadows import Shadows
from penstock_server.response_cache.responses import ResponseCache
from penstock_server.rollout.plan import Arm, TrafficPlan
from tests.server.prediction.plain_world import Collected, HeldThread, Record, World, message

Worlds = Callable[..., list[World]]
NO_WEIGHT = Record(0, "", "", 0, 0.0, 0, int(np.float64(nan).view(np.int64))).weight


@pytest.fixture
def worlds(tmp_path: Path, fake_servable: Any, fake_clock: Any, new_counters: Any) -> Worlds:
    """One in which kernels take plain requests, and one in which nothing is plain. The class is the larger of two numbers."""

    def make(versions: Sequence[str] = "1", **settings: Any) -> list[World]:
        made = [
            World(
                {version: fake_servable(key=("m", version)) for version in versions},
                report_of=lambda: Recorder(new_counters()),
                clock=fake_clock(),
                is_plain=is_plain,
                records=tmp_path / f"records-{is_plain}",
                **{name: value() if callable(value) else value for name, value in settings.items()},
            )
            for is_plain in (True, False)
        ]
        for world in made:
            # No row of it is asked for later: where answers are kept, none is.
            world.warm(message([-1.0, -2.0]), message([-1.0, -2.0], model_version="1"))
            assert world.records is not None
            assert world.records.take() == []
        return made

    return make


def asked(world: World, *messages: bytes) -> list[Record]:
    """What is recorded of these requests."""
    assert world.records is not None
    world.send(*messages)
    world.run()
    world.check_clean()
    return world.records.take()


def both(pair: Sequence[World], *messages: bytes) -> list[Record]:
    """The same in both worlds, where it is the same."""
    plain, general = (asked(world, *messages) for world in pair)
    assert plain == general
    return plain


def plan_of(champion: str, *canaries: Arm) -> TrafficPlan:
    return TrafficPlan(champion, canaries)


def weight(share: float) -> int:
    return int(np.float64(share).view(np.int64))


@pytest.mark.parametrize("is_on_thread", [False, True])
def test_rows_of_requests_with_ids_are_recorded(worlds: Worlds, is_on_thread: bool) -> None:
    pair = worlds(**({"thread": HeldThread} if is_on_thread else {}))
    found = both(
        pair,
        message([5.0, 1.0], [1.0, 7.0], id="a"),
        message([1.0, 2.0]),
        message([3.0, 4.0], id="b", model_version="1"),
    )
    assert pair[0].taken == 3
    expected = [(key_of("m", b"a"), row, score) for row, score in ((0, 2.0), (1, 14.0))]
    assert [(each.key, each.row, np.int64(each.score).view(np.float64)) for each in found if each.role != "named"] == [
        *expected
    ]
    by_key = {(each.key, each.row): each for each in found}
    first, second, named = (by_key[key_of("m", key), row] for key, row in ((b"a", 0), (b"a", 1), (b"b", 0)))
    assert [each.prediction for each in (first, second, named)] == [0.0, 1.0, 1.0]
    assert (first.role, first.weight) == ("champion", weight(1.0))
    assert (named.role, named.weight) == ("named", NO_WEIGHT)


def test_records_tell_with_which_probability_the_version_was_chosen(worlds: Worlds) -> None:
    pair = worlds("123", plan=plan_of("1", Arm("2", 0.25), Arm("3", 0.5, "canary-b")))
    found = both(pair, *(message([1.0, 2.0], id=f"caller {at}") for at in range(60)))
    assert pair[0].taken == 60
    assert {(each.version, each.role, each.weight) for each in found} == {
        ("1", "champion", weight(0.25)),
        ("2", "canary", weight(0.25)),
        ("3", "canary", weight(0.5)),
    }
    for world in pair:
        world.route(plan_of("2", Arm("1", 1.0)))
    found = both(pair, message([1.0, 2.0], id="a"), message([1.0, 2.0], id="b", model_version="@champion"))
    assert {(each.version, each.role, each.weight) for each in found} == {
        ("1", "canary", weight(1.0)),
        ("2", "named", NO_WEIGHT),
    }


def test_a_request_has_the_probability_of_the_plan_that_chose_its_version(worlds: Worlds) -> None:
    """Not that of the plan in force when it is answered."""
    pair = worlds("12", plan=plan_of("1", Arm("2", 1.0)))
    both(pair, message([1.0, 2.0], id="first"))
    for world in pair:
        world.send(message([1.0, 2.0], id="waits"))
        world.route(plan_of("1", Arm("2", 0.5)))
    (record,) = both(pair)
    assert (record.version, record.role, record.weight) == ("2", "canary", weight(1.0))


def test_what_fails_or_is_left_is_not_recorded(worlds: Worlds) -> None:
    pair = worlds()
    for world in pair:
        # A batch that fails runs again, request by request.
        world.executors["1"].servable.fails = lambda rows: ModelFailedError("no") if (rows < 0).any() else None  # type: ignore[attr-defined]
    found = both(pair, message([1.0, 2.0], id="a"), message([-1.0, 2.0], id="b"), message([3.0, 2.0], id="c"))
    assert {each.key for each in found} == {key_of("m", b"a"), key_of("m", b"c")}
    for world in pair:
        slots = world.send(message([1.0, 2.0], id="d"), message([1.0, 2.0], id="e"))
        world.leave(slots[0])
    assert {each.key for each in both(pair)} == {key_of("m", b"e")}


def test_rows_that_are_refused_are_not_recorded(worlds: Worlds) -> None:
    pair = worlds()

    def predict(blocks: Any, rows: int, *_: Any) -> Outputs:
        found = np.full(rows, -1)
        found[0] = 0
        return Outputs([np.frombuffer(blocks[0]).reshape(rows, 2)], 0.0, 0.0, Refusal(found, ("no",)))

    for world in pair:
        world.executors["1"].servable.predict = predict  # type: ignore[method-assign]
    found = both(pair, message([1.0, 2.0], id="a"), message([5.0, 1.0], [1.0, 7.0], id="b"))
    assert [(each.key, each.prediction) for each in found] == [(key_of("m", b"b"), 0.0), (key_of("m", b"b"), 1.0)]


def test_a_reply_that_is_too_large_is_not_recorded(worlds: Worlds) -> None:
    pair = worlds(reply_bytes=300)
    found = both(pair, message(*[[1.0, 2.0]] * 12, id="large"), message([1.0, 2.0], id="small"))
    assert [each.key for each in found] == [key_of("m", b"small")]


@pytest.mark.parametrize("kept_by", ["the same request", "another"])
def test_kept_answers_are_recorded(worlds: Worlds, kept_by: str) -> None:
    pair = worlds(cache=lambda: ResponseCache(1 << 20))
    first = message([1.0, 2.0], id="a")
    before = both(pair, first)
    again = both(pair, first if kept_by == "the same request" else message([1.0, 2.0], id="b"))
    assert [each._replace(key=0) for each in before] == [each._replace(key=0) for each in again]
    assert again[0].key == key_of("m", b"a" if kept_by == "the same request" else b"b")
    assert pair[0].executors["1"].servable.runs == [1, 1]  # type: ignore[attr-defined]


def test_of_a_large_request_the_first_rows_are_recorded(worlds: Worlds) -> None:
    pair = worlds()
    rows = [[float(at), 1.5] for at in range(300)]
    found = both(pair, message(*rows, id="a"), message([9.0, 1.0], id="b"))
    own = [each for each in found if each.key == key_of("m", b"a")]
    assert sorted(each.row for each in own) == list(range(record_layout.MOST_ROWS))
    assert sum(each.prediction for each in own) == 2.0  # rows 0 and 1
    assert len(found) == record_layout.MOST_ROWS + 1


def test_a_full_file_is_counted_and_holds_nobody_up(worlds: Worlds) -> None:
    for world in worlds():
        assert world.records is not None
        ring = world.records.writer.own.ring
        places = len(ring.records)
        ring.words[:2] = 10 * places - 1, 9 * places  # one place is left
        slots = world.send(message([1.0, 2.0], [3.0, 4.0], id="a"), message([1.0, 2.0], id="b"))
        world.run()
        assert all(isinstance(world.port.ends[slot], bytes) for slot in slots)
        # Kernels drop a request, Python a batch.
        assert ring.lost == (2 if world.is_plain else 3)
        assert ring.written == 10 * places - (0 if world.is_plain else 1)


def test_records_go_on_at_the_beginning_of_the_file(worlds: Worlds) -> None:
    pair = worlds()
    for world in pair:
        assert world.records is not None
        ring = world.records.writer.own.ring
        ring.words[:2] = 10 * len(ring.records) - 1
    assert [each.row for each in both(pair, message([1.0, 2.0], [3.0, 4.0], id="a"))] == [0, 1]


def shadowed(world: World, servable: Any, report: Any) -> Collected:
    """Has a version be the shadow."""
    executor, thread = world.executors["1"], Collected()
    assert world.records is not None
    executor.set_shadows(
        Shadows(
            [
                (
                    ShadowTarget(
                        thread,  # type: ignore[arg-type]
                        servable=servable,
                        report=report,
                        reader=executor.reader,
                        champion=executor.reader,
                        order=(BlockCopy(0),),
                        records=world.records.of("2", servable),
                    ),
                    1.0,
                )
            ]
        )
    )
    return thread


@pytest.mark.parametrize("is_batched", [True, False])
def test_the_shadow_records_what_it_answers(
    worlds: Worlds, fake_servable: Any, new_counters: Any, is_batched: bool
) -> None:
    pair = worlds()
    rows = message([5.0, 1.0], [1.0, 7.0], id="a"), message([1.0, 2.0]), message([3.0, 4.0], id="b")
    found = []
    for world in pair:
        shadow = fake_servable(key=("m", "2"), is_batched=is_batched)
        thread = shadowed(world, shadow, Recorder(new_counters()))
        champions = asked(world, *rows)
        for target, copy in thread.copies:
            target.run(copy)
        assert world.records is not None
        found.append(world.records.take(of_shadow=True))
        # The same but for who answered.
        as_champion = [each._replace(version="1", role="champion", weight=weight(1.0)) for each in found[-1]]
        assert as_champion == champions
        assert {(each.version, each.role, each.weight) for each in found[-1]} == {("2", "shadow", NO_WEIGHT)}
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_what_the_shadow_refuses_or_fails_on_is_not_recorded(
    worlds: Worlds, fake_servable: Any, new_counters: Any
) -> None:
    (world, _) = worlds()
    shadow = fake_servable(key=("m", "2"))
    thread = shadowed(world, shadow, Recorder(new_counters()))
    asked(world, message([5.0, 1.0], id="a"), message([1.0, 7.0], id="b"))
    asked(world, message([1.0, 7.0], id="c"))
    predict = shadow.predict

    def refusing(*arguments: Any) -> Outputs:
        made: Outputs = predict(*arguments)
        found = np.full(len(made.arrays[0]), -1)
        found[0] = 0
        return replace(made, refusal=Refusal(found, ("no",)))

    shadow.predict = refusing
    for target, copy in thread.copies:
        target.run(copy)
    assert world.records is not None
    (record,) = world.records.take(of_shadow=True)
    assert record.key == key_of("m", b"b")


def test_an_answer_whose_outputs_cannot_be_read_is_given_all_the_same(worlds: Worlds) -> None:
    for world in worlds():
        world.executors["1"].records.reader = PredictionReader(LabelOutput(7), None, None)  # type: ignore[union-attr]
        assert asked(world, message([1.0, 2.0], id="a")) == []


FLOATS = (TensorInfo("score", "FP32", (ANY, 1)), TensorInfo("scores", "FP64", (ANY, 3)))
LABELS, SCORES = OutputReader(LabelOutput(0), 1), OutputReader(Largest(0), 0)


@pytest.mark.parametrize(
    ("reader", "outputs", "predictions", "scores"),
    [
        (OutputReader(None, 0), [np.array([[1.5], [2.5]], "f4")], [1.5, 2.5], [nan, nan]),
        (OutputReader(None, 0), [np.array([3, 4], "i4")], [3.0, 4.0], [nan, nan]),
        (LABELS, [np.array([1, 0]), np.array([0.25, 0.5], "f4")], [1.0, 0.0], [0.25, 0.5]),
        (LABELS, [np.array([[1], [0]]), np.array([[0.25, 0.75], [0.5, 0.5]])], [1.0, 0.0], [0.75, 0.5]),
        (LABELS, [np.array([2, 0]), np.array([[0.25, 0.25, 0.5], [0.5, nan, 0.0]])], [2.0, 0.0], [0.5, nan]),
        (LABELS, [np.array([2, 0]), np.array([0.5])], [2.0, 0.0], [nan, nan]),
        (OutputReader(LabelOutput(0), None), [np.array([1, 0])], [1.0, 0.0], [nan, nan]),
        (SCORES, [np.array([[0.25, 0.75], [0.5, 0.5]])], [1.0, 0.0], [0.75, 0.5]),
        (SCORES, [np.zeros((0, 3))], [], []),
        (
            OutputReader(NamedLabels(0, {"no": 0, "yes": 1}), None),
            [np.array(["yes", "maybe"], object)],
            [1.0, 2.0],
            [nan, nan],
        ),
    ],
)
def test_predictions_and_scores_are_read_from_outputs(
    reader: OutputReader, outputs: list[Any], predictions: list[float], scores: list[float]
) -> None:
    specs = [TensorInfo(f"y{at}", "FP64", (ANY, *array.shape[1:])) for at, array in enumerate(outputs)]
    made = prediction_reader(reader, specs)
    assert made is not None
    found = made.read(outputs)
    assert found.predictions.dtype == found.scores.dtype == np.float64
    np.testing.assert_array_equal(found.predictions, predictions)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize(
    ("reader", "specs"),
    [
        (OutputReader(None, None), []),
        (OutputReader(None, 0), [TensorInfo("y", "FP64", (ANY, 2))]),
        (OutputReader(None, 0), [TensorInfo("y", "FP64", (ANY, ANY))]),
    ],
)
def test_without_a_class_or_one_number_nothing_is_recorded(reader: OutputReader, specs: list[TensorInfo]) -> None:
    assert prediction_reader(reader, specs) is None


def test_the_table_says_what_predictions_are(tmp_path: Path, fake_servable: Any) -> None:
    files = RecordFiles(tmp_path, 3, places=8)
    servable = fake_servable(key=("fraud", "3"))
    names = ("no", "yes")
    readers = [OutputReader(Largest(0), 0), OutputReader(LabelOutput(0), None), OutputReader(NamedLabels(0, {}), None)]
    servable.artifact = SimpleNamespace(manifest=SimpleNamespace(classes=names))
    for reader in readers:
        assert files.of(servable, reader, "abc") is not None
    servable.artifact = SimpleNamespace(manifest=None)
    servable.outputs = (TensorInfo("y", "FP64", (ANY,)),)
    assert files.of(servable, OutputReader(None, 0), "") is not None
    assert files.of(servable, OutputReader(None, None), "") is None
    tables = [prediction_file.read_table(ring) for ring in rings_in(tmp_path, prediction_file.KIND)]
    assert (
        tables
        == [
            (
                AnsweredVersion("fraud", "3", "abc", "class", names),
                AnsweredVersion("fraud", "3", "abc", "class", ()),
                AnsweredVersion("fraud", "3", "", "number", ()),
            )
        ]
        * 2
    )


@pytest.mark.parametrize("request_id", ["", "a", "z" * 127, "z" * 128, "ü" * 70_000])
def test_an_id_is_found_in_its_field(request_id: str) -> None:
    assert id_of(encoded_id(request_id)) == request_id.encode()


def test_requests_that_name_a_version_are_told_apart() -> None:
    assert Route(*NAMED).role == record_layout.NAMED == prediction_file.ROLES.index("named")
    assert [prediction_file.ROLES.index(name) for name in ("champion", "canary", "shadow")] == [
        record_layout.CHAMPION,
        record_layout.CANARY,
        record_layout.SHADOW,
    ]
    assert layout.NUMBER not in {layout.NOTHING, layout.LABELS, layout.LARGEST}
