from collections import Counter
from math import inf

import numpy as np
import pytest

from penstock_tools.replay import report


def test_a_share_of_nothing_is_not_known():
    assert report.share(0, 0) == report.Share(0, 0, None, None, None)


@pytest.mark.parametrize(("rows", "of"), [(0, 10), (10, 10), (3, 10), (999, 1000)])
def test_a_share_is_in_its_interval(rows, of):
    found = report.share(rows, of)
    assert 0 <= found.low <= rows / of <= found.high <= 1
    assert found.low < found.high


def test_classes_beyond_those_that_are_told_apart_are_counted_together():
    pairs = Counter({(str(at), str(at)): 10 for at in range(report.MOST_CLASSES)})
    pairs["70", "70"], pairs["71", "1"] = 2, 3
    classes, changed = report.by_class(pairs)
    assert len(classes) == report.MOST_CLASSES + 1
    assert (classes[-1].name, classes[-1].agreement.rows, classes[-1].agreement.of) == (report.OTHERS, 2, 5)
    assert [one.name for one in classes[:3]] == ["0", "1", "2"]
    assert changed == (report.ClassPair("71", "1", 3),)


def test_infinite_distances_are_counted_apart():
    found = report.distances(np.array([0.0, 0.5, inf]))
    assert (found.infinite, found.largest, found.mean) == (1, 0.5, 0.25)
    assert (sum(found.rows), found.rows[-1]) == (3, 1)


def test_one_sided_pairs_are_evidence():
    right = np.zeros((2, 100), np.bool_)
    right[1, :60] = True
    found = report.paired_truth(right, 0)
    assert (found.only_candidate, found.only_logged, found.both, found.neither) == (60, 0, 0, 40)
    assert found.e_value > 1e6
    assert found.low > 0.3
    assert report.paired_truth(np.repeat(right, 2, axis=1)[:, :0], 3).candidate.share is None
