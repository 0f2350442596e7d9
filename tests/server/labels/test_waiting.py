"""Labels wait in a bounded number, and wait on after a crash."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.waiting import WaitingLabels


def labels(*keys: int) -> NDArray[np.int64]:
    made = np.zeros((len(keys), 8), np.int64)
    made[:, 0] = keys
    return made


def test_a_label_is_looked_at_when_its_answer_has_come(tmp_path: Path) -> None:
    waiting = WaitingLabels(tmp_path, places=8)
    assert len(waiting.add(labels(1, 2, 3), 0)) == 0
    assert waiting.due(100).tolist() == []
    waiting.wake(np.array([2, 9], np.uint64), 50)
    assert waiting.due(49).tolist() == []
    places = waiting.due(50)
    assert waiting.at(places)[:, 0].tolist() == [2]
    waiting.rest(places)
    assert waiting.due(50).tolist() == []
    waiting.done(places, 1)
    assert len(waiting) == 2


def test_the_oldest_are_given_up_when_there_is_no_room(tmp_path: Path) -> None:
    waiting = WaitingLabels(tmp_path, places=4)
    waiting.add(labels(1, 2, 3), 0)
    assert waiting.add(labels(4, 5), 1)[:, 0].tolist() == [1]
    assert waiting.at(waiting.since(1))[:, 0].tolist() == [2, 3, 4, 5]
    assert waiting.add(labels(*range(10, 16)), 2)[:, 0].tolist() == [10, 11, 2, 3, 4, 5]
    assert len(waiting) == 4


def test_what_a_step_did_that_did_not_end_is_undone(tmp_path: Path) -> None:
    waiting = WaitingLabels(tmp_path, places=8)
    waiting.add(labels(1, 2, 3), 0)
    first, end = waiting.first, waiting.end
    waiting.done(waiting.since(0)[:1], 6)
    waiting.done(waiting.since(0)[:1], 7)
    waiting.add(labels(4), 0)
    again = WaitingLabels(tmp_path, first=first, end=end, step=6, now_ns=5, places=8)
    assert again.at(again.due(5))[:, 0].tolist() == [2, 3]
    assert again.at(again.since(5))[:, 0].tolist() == [2, 3]


def test_the_first_moves_on_with_what_is_done(tmp_path: Path) -> None:
    waiting = WaitingLabels(tmp_path, places=8)
    waiting.add(labels(1, 2, 3), 0)
    places = waiting.since(0)
    waiting.done(places[1:2], 1)
    assert waiting.first == 0
    waiting.done(places[:1], 1)
    assert waiting.first == 2
    waiting.done(places[2:], 1)
    assert waiting.first == waiting.end == 3
