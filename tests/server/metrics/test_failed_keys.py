"""Each key's failures are counted once each, whichever worker sees them, in bounded memory, and whatever becomes of it."""

import mmap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from penstock_server.metrics import failed_keys
from penstock_server.metrics.counters import KEY_FAILURES, MOST_OF_A_KEY, CountersShape, new_counters
from penstock_server.metrics.failed_keys import MOST, SLOTS, TABLE_BYTES, FailureTables, slot_of
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.routed import totals
from penstock_server.rollout.plan import key_place

BOTH = ("1", "2")


@pytest.fixture
def tables(tmp_path: Path) -> FailureTables:
    return FailureTables(tmp_path)


def opened(tables: FailureTables, versions: tuple[str, ...] = BOTH, model: str = "m") -> failed_keys.FailedKeys:
    table = tables.of(model, versions)
    assert table is not None
    return table


def test_workers_count_the_failures_of_a_key_together(tables: FailureTables, tmp_path: Path) -> None:
    one, two = opened(tables), opened(FailureTables(tmp_path))
    assert [table.count("a") for table in (one, two, two, one)] == [1, 2, 3, 4]
    assert two.count("b") == 1
    assert opened(tables, model="other").count("a") == 1


def test_a_worker_that_takes_the_place_of_another_goes_on(tables: FailureTables, tmp_path: Path) -> None:
    opened(tables).count("a")
    assert opened(FailureTables(tmp_path)).count("a") == 2


def test_counts_go_on_while_the_same_versions_share_and_begin_anew_with_others(
    tables: FailureTables, tmp_path: Path
) -> None:
    table = opened(tables)
    table.count("a")
    assert opened(tables, ("2", "1")) is table
    changed = opened(tables, ("1", "3"))
    assert changed.count("a") == 1
    assert opened(FailureTables(tmp_path), ("1", "3")).count("a") == 2
    assert tables.of("m", ()) is tables.of("m", ("1",)) is None
    assert opened(tables, ("1", "3")).count("a") == 1


def test_tables_of_models_that_are_gone_are_closed(tables: FailureTables) -> None:
    opened(tables).count("a")
    tables.keep(["other"])
    assert opened(tables).count("a") == 1


def test_a_slot_counts_to_its_most(tables: FailureTables) -> None:
    table = opened(tables)
    assert [table.count("a") for _ in range(MOST + 3)][-4:] == [MOST, MOST, MOST, MOST]


def test_the_memory_is_bounded_and_keys_without_a_slot_of_their_own_are_few(
    tables: FailureTables, tmp_path: Path
) -> None:
    table, keys = opened(tables), 20_000
    first = sum(table.count(f"user-{number}") == 1 for number in range(keys))
    missed = keys / SLOTS / 2  # on average over the keys, of which the last find the most slots taken
    assert first / keys == pytest.approx(1 - missed, abs=4 * (missed / keys) ** 0.5)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == TABLE_BYTES


def test_a_slot_says_nothing_of_where_a_key_is_routed() -> None:
    keys = [f"user-{number}" for number in range(4000)]
    places, slots = [key_place("m", key) for key in keys], [slot_of(key) for key in keys]
    assert abs(np.corrcoef(places, slots)[0, 1]) < 4 / len(keys) ** 0.5
    low = [slot & 1 for slot in slots]
    assert abs(np.corrcoef(places, low)[0, 1]) < 4 / len(keys) ** 0.5


def test_without_a_file_a_worker_counts_alone_and_says_so(tmp_path: Path) -> None:
    with capture_logs() as logs:
        table = opened(FailureTables(tmp_path / "none"))
    assert [table.count("a"), table.count("a")] == [1, 2]
    assert logs[0]["model"] == "m"


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["", "a", "b", "\ud800"]), st.booleans()), max_size=200))
def test_the_router_s_draws_are_what_is_counted(events: list[tuple[int, str, bool]]) -> None:
    """Of the failures of two workers: firsts, fourths, and as many as count of each key; those without one are in each."""
    counters = [new_counters(CountersShape()) for _ in range(2)]
    recorders = [Recorder(each) for each in counters]
    table = failed_keys.FailedKeys(mmap.mmap(-1, TABLE_BYTES), 1)
    for recorder in recorders:
        recorder.failed_keys = table
    for worker, key, is_named in events:
        recorders[worker].refused("model_failed", key=key, is_named=is_named)
        recorders[worker].refused("overloaded", key=key)
    drawn = Counter(key for _, key, is_named in events if not is_named)
    without, keyed = drawn.pop("", 0), drawn.values()
    expected = (
        without + len(keyed),
        without + sum(count >= 4 for count in keyed),
        without + sum(min(count, MOST_OF_A_KEY) for count in keyed),
    )
    assert totals(counters).by_key == expected
    assert len(KEY_FAILURES) == len(expected)


def test_while_nobody_shares_nothing_is_counted_by_key() -> None:
    counters = new_counters(CountersShape())
    Recorder(counters).refused("internal", key="a")
    assert (totals([counters]).failed, totals([counters]).by_key) == (1, (0, 0, 0))
