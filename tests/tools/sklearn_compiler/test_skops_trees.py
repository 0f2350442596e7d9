"""Trees in .skops files: scikit-learn's own load without a question, and edited ones never reach compiled code."""

import io
import json
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
    StackingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler import skops_trees
from penstock_tools.sklearn_compiler.load import load_pipeline
from penstock_tools.sklearn_compiler.tree_checks import UnknownUseError

DRAW = np.random.default_rng(0)
ROWS = DRAW.normal(size=(80, 4))
ROWS[:, 3] = DRAW.integers(0, 5, 80)
GAPS = np.where(DRAW.random(ROWS.shape) < 0.1, np.nan, ROWS)
TWO = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)
THREE = np.digitize(ROWS[:, 0], [-0.5, 0.5])
NUMBER = np.abs(ROWS[:, 0]) + ROWS[:, 3] / 4 + 0.1
FRAME = pd.DataFrame(ROWS, columns=list("abcd")).assign(d=pd.Categorical(ROWS[:, 3].astype(int).astype(str)))

# With each: whether its .skops file loads without a question.
ENSEMBLES = {
    "DecisionTreeClassifier": (DecisionTreeClassifier(), ROWS, THREE, True),
    "DecisionTreeClassifier, grown best first": (DecisionTreeClassifier(max_leaf_nodes=9), ROWS, THREE, True),
    "DecisionTreeClassifier, pruned": (DecisionTreeClassifier(ccp_alpha=0.01), ROWS, THREE, True),
    "DecisionTreeClassifier, gaps": (DecisionTreeClassifier(), GAPS, THREE, True),
    "DecisionTreeClassifier, one node": (DecisionTreeClassifier(), ROWS, np.zeros(80), True),
    "DecisionTreeRegressor": (DecisionTreeRegressor(), ROWS, NUMBER, True),
    "DecisionTreeRegressor, two outputs": (DecisionTreeRegressor(), ROWS, ROWS[:, :2], True),
    "ExtraTreeClassifier": (ExtraTreeClassifier(), ROWS, TWO, True),
    "ExtraTreeRegressor": (ExtraTreeRegressor(), ROWS, NUMBER, True),
    "RandomForestClassifier": (RandomForestClassifier(3), ROWS, THREE, True),
    "RandomForestClassifier, two outputs": (RandomForestClassifier(3), ROWS, np.c_[TWO, THREE], True),
    "RandomForestRegressor": (RandomForestRegressor(3), ROWS, NUMBER, True),
    "ExtraTreesClassifier": (ExtraTreesClassifier(3), ROWS, TWO, True),
    "ExtraTreesRegressor": (ExtraTreesRegressor(3), ROWS, NUMBER, True),
    "RandomTreesEmbedding": (RandomTreesEmbedding(3), ROWS, None, True),
    "IsolationForest": (IsolationForest(n_estimators=3), ROWS, None, True),
    "BaggingClassifier": (BaggingClassifier(n_estimators=3, max_features=2), ROWS, TWO, True),
    "BaggingRegressor": (BaggingRegressor(n_estimators=3), ROWS, NUMBER, True),
    "AdaBoostClassifier": (AdaBoostClassifier(n_estimators=3), ROWS, THREE, True),
    "AdaBoostRegressor": (AdaBoostRegressor(n_estimators=3), ROWS, NUMBER, True),
    "GradientBoostingClassifier": (GradientBoostingClassifier(n_estimators=3), ROWS, TWO, True),
    "GradientBoostingClassifier, classes": (GradientBoostingClassifier(n_estimators=3), ROWS, THREE, True),
    "GradientBoostingClassifier, exponential": (
        GradientBoostingClassifier(n_estimators=3, loss="exponential"),
        ROWS,
        TWO,
        True,
    ),
    "GradientBoostingClassifier, from zero": (
        GradientBoostingClassifier(n_estimators=3, init="zero"),
        ROWS,
        THREE,
        True,
    ),
    "GradientBoostingClassifier, from a model": (
        GradientBoostingClassifier(n_estimators=3, init=LogisticRegression()),
        ROWS,
        THREE,
        False,
    ),
    **{
        f"GradientBoostingRegressor, {loss}": (GradientBoostingRegressor(n_estimators=3, loss=loss), ROWS, NUMBER, True)
        for loss in ("squared_error", "absolute_error", "huber", "quantile")
    },
    "HistGradientBoostingClassifier": (HistGradientBoostingClassifier(max_iter=3), GAPS, TWO, True),
    "HistGradientBoostingClassifier, classes": (
        HistGradientBoostingClassifier(max_iter=3, early_stopping=True),
        ROWS,
        THREE,
        True,
    ),
    "HistGradientBoostingClassifier, categories": (
        HistGradientBoostingClassifier(max_iter=3, categorical_features=[3]),
        ROWS,
        TWO,
        True,
    ),
    "HistGradientBoostingRegressor, categories of a frame": (
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5),
        FRAME,
        NUMBER,
        True,
    ),
    "HistGradientBoostingRegressor, categories alone": (
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5),
        FRAME[["d"]],
        NUMBER,
        True,
    ),
    **{
        f"HistGradientBoostingRegressor, {loss}": (
            HistGradientBoostingRegressor(max_iter=3, loss=loss, quantile=0.5),
            ROWS,
            NUMBER,
            True,
        )
        for loss in ("squared_error", "absolute_error", "gamma", "poisson", "quantile")
    },
    "StackingClassifier": (
        StackingClassifier([("tree", DecisionTreeClassifier()), ("linear", LogisticRegression())], cv=2),
        ROWS,
        TWO,
        True,
    ),
    "VotingRegressor in a pipeline": (
        make_pipeline(StandardScaler(), VotingRegressor([("forest", RandomForestRegressor(2))])),
        ROWS,
        NUMBER,
        True,
    ),
    "MultiOutputRegressor": (MultiOutputRegressor(GradientBoostingRegressor(n_estimators=2)), ROWS, ROWS[:, :2], True),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Boosting's threads wait for each other longer than they work."""
    with threadpool_limits(1):
        yield


def never(question):
    raise AssertionError(question)


@pytest.mark.long
@pytest.mark.parametrize(("model", "rows", "answers", "is_harmless"), ENSEMBLES.values(), ids=ENSEMBLES)
def test_what_loads_without_a_question(tmp_path, model, rows, answers, is_harmless):
    model.fit(rows, answers)
    skops.io.dump(model, tmp_path / "p.skops")
    asked = []
    loaded = load_pipeline(tmp_path / "p.skops", lambda question: not asked.append(question))
    assert asked == [] or not is_harmless
    if hasattr(model, "predict"):
        np.testing.assert_array_equal(loaded.predict(rows), model.predict(rows))
    else:
        assert (loaded.transform(rows) != model.transform(rows)).nnz == 0


class Edit:
    """A .skops file, opened to be changed."""

    def __init__(self, model):
        with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as file:
            self.files = {name: file.read(name) for name in file.namelist()}
        self.schema = json.loads(self.files["schema.json"])

    def found(self, name, at=None):
        """The states of a class, in the order of the file."""
        at = self.schema if at is None else at
        inner = at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
        own = [at] if isinstance(at, dict) and at.get("__class__") == name and "content" in at else []
        return own + [state for held in inner if isinstance(held, dict | list) for state in self.found(name, held)]

    def attributes(self, name, which=0):
        return self.found(name)[which]["content"]["content"]

    def set(self, state, value):
        """Writes a number or a text, in this place alone: skops reads places of one id once."""
        assert state["__loader__"] == "JsonNode"
        state["content"] = json.dumps(value)
        state.pop("__id__", None)

    def array(self, state):
        return np.load(io.BytesIO(self.files[state["file"]]), allow_pickle=True)

    def put(self, state, array):
        """Writes an array, in this place alone."""
        written = io.BytesIO()
        np.save(written, array)
        state["file"] = f"edited{len(self.files)}.npy"
        self.files[state["file"]] = written.getvalue()
        state.pop("__id__", None)

    def nodes(self, field, at, value):
        state = self.attributes("Tree")["nodes"]
        array = self.array(state)
        array[field][at] = value
        self.put(state, array)

    def bins(self, field, at, value):
        state = self.attributes("TreePredictor")["nodes"]
        array = self.array(state)
        array[field][at] = value
        self.put(state, array)

    def drop(self, state, name):
        """Takes an attribute away, with the type of its key."""
        names = list(state["content"])
        state["key_types"]["content"].pop(names.index(name))
        state["content"].pop(name)

    def add(self, state, name, value):
        state["content"][name] = value
        state["key_types"]["content"].append(state["key_types"]["content"][0])

    def save(self, path):
        self.files["schema.json"] = json.dumps(self.schema).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, content in self.files.items():
                file.writestr(name, content)


def depth(value):
    def edit(file):
        file.set(file.attributes("Tree")["max_depth"], value)

    return edit


def arguments(at, value):
    def edit(file):
        file.set(file.found("Tree")[0]["__reduce__"]["args"]["content"][at], value)

    return edit


def classes(array):
    def edit(file):
        file.put(file.found("Tree")[0]["__reduce__"]["args"]["content"][1], array)

    return edit


def node(field, at, value):
    return lambda file: file.nodes(field, at, value)


def all_nodes(made):
    def edit(file):
        state = file.attributes("Tree")["nodes"]
        file.put(state, made(file.array(state)))

    return edit


def values(made):
    def edit(file):
        state = file.attributes("Tree")["values"]
        file.put(state, made(file.array(state)))

    return edit


def header(shape):
    """Nodes whose header promises more than the file holds."""

    def edit(file):
        state = file.attributes("Tree")["nodes"]
        array = file.array(state)
        written = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(written, described)
        file.files[state["file"]] = written.getvalue() + array.tobytes()

    return edit


TREE = DecisionTreeClassifier(max_depth=2, random_state=0).fit(ROWS, TWO)
COUNT = TREE.tree_.node_count

EDITED_TREES = {
    "a child far away": (
        node("left_child", 0, 10**9),
        f"node 0 of a tree has the child 1000000000, expected a later one of its {COUNT} nodes",
    ),
    "a child just beyond": (node("right_child", 0, COUNT), f"node 0 of a tree has the child {COUNT}, expected"),
    "a negative child": (node("right_child", 0, -2), "node 0 of a tree has the child -2, expected"),
    "one child alone": (node("right_child", 0, -1), "node 0 of a tree has the child -1, expected"),
    "a leaf with a right child": (node("right_child", COUNT - 1, 1), "a node with a right child and no left one"),
    "a node that is its own child": (node("left_child", 0, 0), "node 0 of a tree has the child 0, expected"),
    "a cycle": (node("left_child", 1, 0), "node 1 of a tree has the child 0, expected"),
    "a node with two parents": (node("left_child", 0, 2), "of a tree has [02] parents, expected one"),
    "a column beyond the last": (node("feature", 0, 4), "a tree splits column 4, expected one of 4"),
    "a column far away": (node("feature", 0, 10**12), "a tree splits column 1000000000000, expected one of 4"),
    "a negative column": (node("feature", 0, -1), "a tree splits column -1, expected one of 4"),
    "a split at no number": (node("threshold", 0, np.nan), "a tree splits a column at NaN"),
    "paths longer than said": (depth(1), "a tree is 2 levels deep, and says that it is 1"),
    "a negative depth": (depth(-1), "a tree is 2 levels deep, and says that it is -1"),
    "paths that fill the memory": (depth(10**12), "a tree is 2 levels deep, and says that it is 1000000000000"),
    "fewer nodes than counted": (
        lambda file: file.set(file.attributes("Tree")["node_count"], 10**6),
        f"a tree has {COUNT} nodes, and says that it has 1000000",
    ),
    "no nodes": (all_nodes(lambda nodes: nodes[:0]), "a tree's nodes are records of the shape \\[0\\], expected"),
    "nodes in two rows": (
        all_nodes(lambda nodes: np.stack([nodes, nodes])),
        "a tree's nodes are records of the shape \\[2, ",
    ),
    "nodes that are numbers": (
        all_nodes(lambda nodes: np.zeros(len(nodes))),
        "a tree's nodes are float64 of the shape",
    ),
    "nodes of other bytes": (
        all_nodes(lambda nodes: nodes.astype(nodes.dtype.newbyteorder())),
        "a tree's nodes are records of the shape .*, expected this scikit-learn's own records in one row",
    ),
    "nodes without gaps between": (
        all_nodes(
            lambda nodes: np.rec.fromarrays([nodes[name] for name in nodes.dtype.names], names=nodes.dtype.names)
        ),
        "a tree's nodes are records of the shape",
    ),
    "nodes that are objects": (
        all_nodes(lambda nodes: nodes.astype(object)),
        "does not load: ValueError: Object arrays cannot be loaded",
    ),
    "more nodes than there are bytes": (header((10**9,)), "does not load: "),
    "more nodes than there is memory": (header((10**15,)), "does not load: "),
    "values of fewer nodes": (
        values(lambda values: values[:1]),
        "a tree's values are float64 of the shape \\[1, 1, 2\\], expected",
    ),
    "values of fewer classes": (
        values(lambda values: values[:, :, :1]),
        f"expected float64 of the shape \\[{COUNT}, 1, 2\\]",
    ),
    "values that are whole": (values(lambda values: values.astype(np.int64)), "a tree's values are int64"),
    "more outputs than classes": (arguments(2, 10**9), "expected a number from 1 for each of 1000000000 outputs"),
    "no outputs": (arguments(2, 0), "a tree has 4 columns and 0 outputs, expected whole numbers from 1"),
    "a negative number of outputs": (arguments(2, -1), "a tree has 4 columns and -1 outputs"),
    "outputs in words": (arguments(2, "one"), "a tree has 4 columns and 'one' outputs"),
    "columns beyond all numbers": (arguments(0, 10**30), "a tree has 1000000000000000000000000000000 columns and"),
    "classes without number": (
        classes(np.array([2.5])),
        "a tree's numbers of classes are float64 of the shape \\[1\\]",
    ),
    "negative classes": (classes(np.array([-2])), "a tree's numbers of classes are int64 of the shape \\[1\\]"),
    "classes of more outputs": (
        classes(np.array([2, 2])),
        "a tree's numbers of classes are int64 of the shape \\[2\\]",
    ),
    "no values": (
        lambda file: file.drop(file.found("Tree")[0]["content"], "values"),
        "a tree lacks its nodes, values, node_count or max_depth",
    ),
    "an argument less": (
        lambda file: file.found("Tree")[0]["__reduce__"]["args"]["content"].pop(),
        "a tree is made of other arguments than three",
    ),
}


@pytest.fixture
def nothing_built(monkeypatch):
    """Fails where a tree is given to compiled code."""
    from skops.io._sklearn import TreeNode

    def built(self):
        raise AssertionError("a tree was built")

    monkeypatch.setattr(TreeNode, "_construct", built)


@pytest.mark.parametrize(("edit", "message"), EDITED_TREES.values(), ids=EDITED_TREES)
def test_an_edited_tree_is_refused_before_it_is_built(tmp_path, nothing_built, edit, message):
    file = Edit(TREE)
    edit(file)
    file.save(tmp_path / "p.skops")
    with pytest.raises(InvalidInputError, match=message) as error:
        load_pipeline(tmp_path / "p.skops", never)
    assert str(error.value).startswith(str(tmp_path / "p.skops"))


def attribute(name, attribute, value, which=0):
    """Writes a number or a text over an attribute."""
    return lambda file: file.set(file.attributes(name, which)[attribute], value)


def without(name, attribute, which=0):
    return lambda file: file.drop(file.found(name)[which]["content"], attribute)


def own_method(name, method):
    """Gives an estimator a function for a method, which would take any rows."""

    def edit(file):
        function = {"__class__": "positive", "__module__": "numpy", "__loader__": "FunctionNode"}
        file.add(file.found(name)[-1]["content"], method, function)

    return edit


def bins(field, value, at=0):
    return lambda file: file.bins(field, at, value)


def array_of(name, attribute, made):
    def edit(file):
        state = file.attributes(name)[attribute]
        file.put(state, made(file.array(state)))

    return edit


def wider(file):
    """Gives each round of a boosting a tree more than there are outputs."""
    state = file.attributes("GradientBoostingRegressor")["estimators_"]
    for row in state["content"]:
        row["content"].append(row["content"][0])


BOOSTED = GradientBoostingRegressor(n_estimators=2, random_state=0).fit(ROWS, NUMBER)
CLASSES = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(ROWS, THREE)
HISTOGRAMS = HistGradientBoostingRegressor(max_iter=2, random_state=0, min_samples_leaf=5).fit(ROWS, NUMBER)
CATEGORIES = HistGradientBoostingRegressor(
    max_iter=2, random_state=0, min_samples_leaf=5, categorical_features=[3]
).fit(ROWS, ROWS[:, 3] % 2)
FOREST = RandomForestClassifier(2, max_depth=2, random_state=0).fit(ROWS, TWO)

ELSE = {"__class__": "DummyRegressor", "__module__": "sklearn.dummy", "__loader__": "ObjectNode"}
"""The state of an estimator that has no part in trees."""


def instead(name, attribute, which=0):
    """Puts another estimator where an attribute was."""

    def edit(file):
        file.attributes(name, which)[attribute] = ELSE

    return edit


def another_tree(file):
    file.attributes("GradientBoostingRegressor")["estimators_"]["content"][0]["content"][0] = ELSE


def another_predictor(file):
    file.attributes("HistGradientBoostingRegressor")["_predictors"]["content"][0]["content"].append(ELSE)


def another_round(file):
    file.attributes("HistGradientBoostingRegressor")["_predictors"]["content"].append(ELSE)


EDITED_HOLDERS = {
    "another estimator for one of its trees": (
        FOREST,
        instead("DecisionTreeClassifier", "tree_", which=-1),
        "a DecisionTreeClassifier holds a DummyRegressor for its tree",
    ),
    "another estimator for a boosted tree": (
        BOOSTED,
        another_tree,
        "a GradientBoostingRegressor holds a DummyRegressor, expected fitted DecisionTreeRegressors",
    ),
    "another estimator for a binned tree": (
        HISTOGRAMS,
        another_predictor,
        "a DummyRegressor stands where a tree with nodes and bitsets is expected",
    ),
    "another estimator for a round": (
        HISTOGRAMS,
        another_round,
        "a HistGradientBoostingRegressor holds other trees than lists of them",
    ),
    "a tree of more columns than its estimator": (
        TREE,
        attribute("DecisionTreeClassifier", "n_features_in_", 3),
        "a DecisionTreeClassifier takes 3 columns, and its tree 4",
    ),
    "an estimator that takes any columns": (
        TREE,
        without("DecisionTreeClassifier", "n_features_in_"),
        "a DecisionTreeClassifier lacks its n_features_in_",
    ),
    "columns in words": (
        TREE,
        attribute("DecisionTreeClassifier", "n_features_in_", "4"),
        "a DecisionTreeClassifier has '4' for n_features_in_, expected a whole number from 1",
    ),
    "a check that checks nothing": (
        TREE,
        own_method("DecisionTreeClassifier", "_validate_X_predict"),
        "a DecisionTreeClassifier has an attribute _validate_X_predict, which is a method of its class",
    ),
    "a tree of a forest that takes any columns": (
        FOREST,
        without("DecisionTreeClassifier", "n_features_in_", which=-1),
        "a DecisionTreeClassifier lacks its n_features_in_",
    ),
    "more trees than outputs": (BOOSTED, wider, "a GradientBoostingRegressor has 2 trees a round, and 1 outputs"),
    "fewer outputs than trees": (
        CLASSES,
        array_of("DummyClassifier", "class_prior_", lambda prior: prior[:2]),
        "a GradientBoostingClassifier has 3 trees a round, and 2 outputs",
    ),
    "boosting that takes any columns": (
        BOOSTED,
        without("GradientBoostingRegressor", "n_features_in_"),
        "a GradientBoostingRegressor lacks its n_features_in_",
    ),
    "boosting of more columns": (
        BOOSTED,
        attribute("GradientBoostingRegressor", "n_features_in_", 3),
        "a GradientBoostingRegressor takes 3 columns, and one of its trees 4",
    ),
    "first predictions of another kind": (
        BOOSTED,
        own_method("GradientBoostingRegressor", "_raw_predict_init"),
        "has an attribute _raw_predict_init, which is a method",
    ),
    "a child far away, binned": (
        HISTOGRAMS,
        bins("left", 10**9),
        "node 0 of a tree has the child 1000000000, expected",
    ),
    "a cycle, binned": (HISTOGRAMS, bins("right", 0), "node 0 of a tree has the child 0, expected"),
    "a column beyond the last, binned": (
        HISTOGRAMS,
        bins("feature_idx", 4),
        "a tree splits column 4, expected one of 4",
    ),
    "a negative column, binned": (HISTOGRAMS, bins("feature_idx", -1), "a tree splits column -1, expected one of 4"),
    "no leaf at the end": (HISTOGRAMS, bins("is_leaf", 0, at=-1), "has the child 0, expected"),
    "categories where there are numbers": (HISTOGRAMS, bins("is_categorical", 1), "splits a column by categories that"),
    "nodes that are numbers, binned": (
        HISTOGRAMS,
        array_of("TreePredictor", "nodes", lambda nodes: np.zeros(3)),
        "does not load: TypeError",
    ),
    "no nodes, binned": (
        HISTOGRAMS,
        array_of("TreePredictor", "nodes", lambda nodes: nodes[:0]),
        "a tree's nodes are records of the shape \\[0\\], expected",
    ),
    "a set of categories beyond the last": (
        CATEGORIES,
        bins("bitset_idx", 7),
        "a tree names the set 7 of categories, expected one of 1",
    ),
    "no sets of categories": (
        CATEGORIES,
        array_of("TreePredictor", "raw_left_cat_bitsets", lambda sets: sets[:0]),
        "a tree names the set 0 of categories, expected one of 0",
    ),
    "sets of fewer categories": (
        CATEGORIES,
        array_of("TreePredictor", "raw_left_cat_bitsets", lambda sets: sets[:, :1]),
        "a tree's sets of categories are uint32 of the shape \\[1, 1\\], expected uint32 in rows of 8",
    ),
    "binning that knows fewer columns": (
        CATEGORIES,
        array_of("_BinMapper", "is_categorical_", lambda known: known[:1]),
        "takes 4 columns, and says of uint8 of the shape \\[1\\] whether they are categories",
    ),
    "binned boosting that takes any columns": (
        HISTOGRAMS,
        without("HistGradientBoostingRegressor", "n_features_in_"),
        "a HistGradientBoostingRegressor lacks its n_features_in_",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(("model", "edit", "message"), EDITED_HOLDERS.values(), ids=EDITED_HOLDERS)
def test_an_edited_estimator_of_trees_is_refused(tmp_path, model, edit, message):
    file = Edit(model)
    edit(file)
    file.save(tmp_path / "p.skops")
    with pytest.raises(InvalidInputError, match=message):
        load_pipeline(tmp_path / "p.skops", never)


def elsewhere(file):
    """Puts a tree where an estimator is expected, which hands it rows of any width."""
    bagged = file.attributes("BaggingClassifier")["estimators_"]
    bagged["content"] = [file.found("Tree")[0]]


def alone(file):
    file.schema = {**file.found("Tree")[0], "protocol": file.schema["protocol"]}


def in_disguise(file):
    """Puts a tree in a second place, as a node of another name that stands for it."""
    file.found("Tree")[0]["__id__"] = 7
    place = {"__class__": "clip", "__module__": "numpy", "__loader__": "CachedNode", "__id__": 7}
    file.add(file.found("DecisionTreeClassifier")[0]["content"], "zone", place)


def of_an_old_format(file):
    """Uses a reader whose nodes do not list what they hold."""
    file.schema["protocol"] = 0
    function = {"__class__": "function", "__module__": "builtins", "__loader__": "FunctionNode"}
    function["content"] = {"module_path": "numpy", "function": "clip"}
    file.add(file.found("DecisionTreeClassifier")[0]["content"], "zone", function)


def as_type(file):
    kind = {"__class__": "Tree", "__module__": "sklearn.tree._tree", "__loader__": "TypeNode"}
    file.add(file.found("DecisionTreeClassifier")[0]["content"], "kind", kind)


def as_loss(file):
    """Has a tree made by a node that does not name it as one."""
    file.found("Tree")[0]["__loader__"] = "LossNode"


def of_objects(file):
    estimator = {"__class__": "DummyClassifier", "__module__": "sklearn.dummy", "__loader__": "ObjectNode"}
    file.found("Tree")[0]["__reduce__"]["args"]["content"][0] = estimator


def added(name, attribute, text):
    value = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": text}
    return lambda file: file.add(file.found(name)[0]["content"], attribute, value)


def mask(made):
    """Changes which columns pass the encoding of categories as numbers."""

    def edit(file):
        state = file.attributes("ColumnTransformer")["transformers_"]["content"][1]["content"][2]
        file.put(state, made(file.array(state)))

    return edit


def by_name(file):
    indices = file.attributes("ColumnTransformer")["_transformer_to_input_indices"]
    indices["content"]["numerical"]["content"].pop()


def without_numbers(file):
    file.attributes("ColumnTransformer")["transformers_"]["content"].pop(1)


def names_for_a_mask(file):
    attributes = file.found("ColumnTransformer")[0]["content"]
    state = dict(attributes["content"]["transformers_"]["content"][1]["content"][2])
    file.put(state, np.zeros(4, bool))
    file.add(attributes, "feature_names_in_", state)


def other_function(file):
    function = {"__class__": "positive", "__module__": "numpy", "__loader__": "FunctionNode"}
    file.attributes("FunctionTransformer", -1)["func"] = function


BAGGED = BaggingClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=1).fit(ROWS, TWO)

UNKNOWN_USES = {
    "another loss": (
        BOOSTED,
        instead("GradientBoostingRegressor", "_loss"),
        "sklearn.dummy.DummyRegressor stands for a loss or its link",
    ),
    "another binning": (
        HISTOGRAMS,
        instead("HistGradientBoostingRegressor", "_bin_mapper"),
        "sklearn.dummy.DummyRegressor bins the columns of a HistGradientBoostingRegressor",
    ),
    "a tree for an estimator": (BAGGED, elsewhere, "a tree is held by something else than the estimator that grew it"),
    "a tree for the pipeline": (TREE, alone, "a tree is held by something else than the estimator that grew it"),
    "a tree in two places": (TREE, in_disguise, "a tree is held by something else than the estimator that grew it"),
    "nodes of an old format": (TREE, of_an_old_format, "the file holds a FunctionNode of skops.io.old._general_v0"),
    "the class of trees": (TREE, as_type, "a TypeNode names the type sklearn.tree._tree.Tree"),
    "a tree made as a loss": (TREE, as_loss, "a LossNode names the type sklearn.tree._tree.Tree"),
    "a tree made of an estimator": (TREE, of_objects, "a tree is made of other things than numbers and arrays"),
    "boosting in its fit": (
        HISTOGRAMS,
        added("HistGradientBoostingRegressor", "_in_fit", "true"),
        "a HistGradientBoostingRegressor is in the middle of its fit",
    ),
    "a loss of its own": (
        BOOSTED,
        added("HalfSquaredError", "is_multiclass", "true"),
        "a HalfSquaredError has is_multiclass of its own",
    ),
    "another first estimator": (
        BOOSTED,
        attribute("DummyRegressor", "n_outputs_", 2),
        "a GradientBoostingRegressor begins with another DummyRegressor than its fit makes",
    ),
    "other first predictions": (
        CLASSES,
        attribute("DummyClassifier", "_strategy", "uniform"),
        "a GradientBoostingClassifier begins with another DummyClassifier than its fit makes",
    ),
    **{
        f"an encoding that {why}": (
            CATEGORIES,
            edit,
            "a HistGradientBoostingRegressor encodes its categories in another way than its fit makes",
        )
        for why, edit in {
            "drops a column": mask(lambda columns: columns & False),
            "drops a column by its name": by_name,
            "drops the numbers": without_numbers,
            "takes fewer columns": attribute("ColumnTransformer", "n_features_in_", 3),
            "takes names for a mask": names_for_a_mask,
            "weighs its columns": attribute("ColumnTransformer", "transformer_weights", {"encoder": [1]}),
            "leaves sparse rows": attribute("ColumnTransformer", "sparse_output_", True),
            "runs another function": other_function,
        }.items()
    },
}


@pytest.mark.parametrize(("model", "edit", "use"), UNKNOWN_USES.values(), ids=UNKNOWN_USES)
def test_trees_where_no_fit_puts_them_are_asked_for(tmp_path, model, edit, use):
    file = Edit(model)
    edit(file)
    file.save(tmp_path / "p.skops")
    asked = []
    with pytest.raises(InvalidInputError, match="--trust loads it all the same") as error:
        load_pipeline(tmp_path / "p.skops", asked.append)
    assert asked[0].endswith(f", and {use}.")
    assert f", and {use};" in str(error.value)


def test_a_skops_that_shows_nothing_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io._audit", None)
    with pytest.raises(UnknownUseError, match="this release of skops does not show what it reads"):
        skops_trees.load(b"", ())


def test_the_checks_see_what_is_loaded(tmp_path, nothing_built):
    """skops reads a place once, and takes it for each later one of the same id: the nodes that follow are not read."""
    file = Edit(TREE)
    sound = file.attributes("Tree")["nodes"]
    harm = dict(sound)
    nodes = file.array(sound)
    nodes["left_child"][0] = 10**9
    file.put(harm, nodes)
    harm["__id__"] = sound["__id__"] = 7
    attributes = file.found("DecisionTreeClassifier")[0]["content"]
    attributes["content"] = {"first": harm, **attributes["content"]}
    attributes["key_types"]["content"].insert(0, attributes["key_types"]["content"][0])
    file.save(tmp_path / "p.skops")
    with pytest.raises(InvalidInputError, match="node 0 of a tree has the child 1000000000"):
        load_pipeline(tmp_path / "p.skops", never)
