from typing import Any

import pytest

from penstock_server.drift.baseline import Baseline, NumberBaseline
from penstock_server.drift.joint_baseline import MOST_GROUPS, GroupedColumn, JointBaseline, JointTable

X = GroupedColumn("x", (0, 1, -1, -1, -1), ("low", "high"))
Y = GroupedColumn("y", (0, 1, -1, -1, -1), ("low", "high"))
ANSWER = GroupedColumn("", (0, 1, -1, -1, -1), ("no", "yes"))
PAIR, SEGMENT = JointTable(0, 1, (1, 2, 3, 4), (1.0,)), JointTable(0, 2, (1, 2, 3, 4), (1.0, 2.0))
NUMBERS = tuple(NumberBaseline(name, (0.0,), (5, 5), (0.0, 0.0)) for name in ("x", "y"))
PREDICTIONS = NumberBaseline("p", (0.5,), (5, 5), (0.0, 0.0))


def joint(pairs: Any = (PAIR,), segments: Any = (SEGMENT,)) -> JointBaseline:
    return JointBaseline((X, Y, ANSWER), pairs, segments)


def test_what_is_counted() -> None:
    cells = Baseline(NUMBERS, "digest", predictions=PREDICTIONS, joint=joint()).joint_cells
    assert cells is not None
    assert (cells.tables, cells.sizes, cells.words) == (((0, 1), (0, 2)), (4, 4), 9)
    assert [grouping.column for grouping in cells.groupings] == ["x", "y", ""]
    assert cells.groupings[0].cells == NUMBERS[0].cells
    assert Baseline(NUMBERS, "digest").joint_words == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GroupedColumn("x", (0, 2), ("a", "b")), "'x' has the group 2, expected -1 to 1"),
        (lambda: GroupedColumn("x", (-2,), ("a",)), "'x' has the group -2, expected -1 to 0"),
        (lambda: GroupedColumn("x", (), ()), f"'x' has 0 groups, expected 1 to {MOST_GROUPS}"),
        (lambda: GroupedColumn("x", (), ("a",) * 9), f"'x' has 9 groups, expected 1 to {MOST_GROUPS}"),
        (lambda: joint(pairs=(JointTable(0, 3, (1,), (1.0,)),)), "a table is of column 3, and there are 3"),
        (lambda: joint(pairs=(JointTable(0, 1, (1, 2, 3), (1.0,)),)), "has 3 counts and 1 dispersions, expected 2 x 2 and 1"),
        (lambda: joint(pairs=(JointTable(0, 1, (1, 2, 3, 4), ()),)), "has 4 counts and 0 dispersions"),
        (lambda: joint(pairs=(JointTable(0, 2, (1, 2, 3, 4), (1.0,)),)), "a pair is of the predictions"),
        (lambda: joint(segments=(JointTable(0, 2, (1, 2, 3, 4), (1.0,)),)), "expected 2 x 2 and 2"),
        (lambda: joint(segments=(JointTable(0, 1, (1, 2, 3, 4), (1.0, 1.0)),)), "expected a raw column and the predictions"),
        (lambda: joint(segments=(JointTable(2, 0, (1, 2, 3, 4), (1.0, 1.0)),)), "expected a raw column and the predictions"),
        (lambda: joint(pairs=(PAIR,) * 65), "65 pairs, expected at most 64"),
        (lambda: Baseline(NUMBERS, "digest", joint=joint()), "name the column '', which the baseline does not have"),
        (lambda: Baseline(NUMBERS[:1], "digest", predictions=PREDICTIONS, joint=joint()), "name the column 'y'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_groups_for_other_cells_are_refused() -> None:
    other = NumberBaseline("x", (0.0, 1.0), (5, 5, 5), (0.0,) * 3)
    with pytest.raises(ValueError, match="'x' has groups for 5 cells, expected 6"):
        Baseline((other, NUMBERS[1]), "digest", predictions=PREDICTIONS, joint=joint())
