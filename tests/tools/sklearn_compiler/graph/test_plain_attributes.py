import numpy as np
import onnx.helper
import pytest
from skl2onnx.common import _container as container
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from penstock_tools.sklearn_compiler.graph import convert
from penstock_tools.sklearn_compiler.graph.plain_attributes import plain, plain_attributes

ROWS = np.random.default_rng(0).normal(size=(200, 3))
ANSWERS = (ROWS[:, 0] > 0).astype(np.int64)
ESTIMATORS = [
    HistGradientBoostingClassifier(max_iter=3),
    HistGradientBoostingRegressor(max_iter=3),
    DecisionTreeClassifier(max_depth=3),
    KNeighborsClassifier(3),
]


def scalars(value):
    return [each for one in value for each in scalars(one)] if isinstance(value, list | tuple | np.ndarray) else [value]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
def test_no_attribute_that_reaches_onnx_is_of_numpy(estimator, monkeypatch):
    seen = []
    make_node = onnx.helper.make_node

    def watched(*args, **attributes):
        seen.extend(scalar for value in attributes.values() for scalar in scalars(value))
        return make_node(*args, **attributes)

    monkeypatch.setattr(container, "make_node", watched)
    convert._converted(estimator.fit(ROWS, ANSWERS), 3, "FP32", ({},))
    assert seen
    assert not {type(scalar).__name__ for scalar in seen if isinstance(scalar, np.generic | bool)}
    assert container.make_node is watched


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.bool_(True), 1),
        (True, 1),
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]]), [[1, 2]]),
        ([np.int64(1), "a", b"b", np.str_("c")], [1, "a", b"b", "c"]),
        ((np.bool_(False), 2.5), [0, 2.5]),
        (None, None),
    ],
)
def test_values_become_pythons(given, expected):
    got = plain(given)
    assert got == expected
    assert [type(each) for each in scalars(got)] == [type(each) for each in scalars(expected)]


def test_skl2onnx_is_as_before_after_an_error():
    before = container.make_node
    with pytest.raises(ValueError, match="stop"), plain_attributes():
        raise ValueError("stop")
    assert container.make_node is before
