"""Checks scikit-learn's trees that come from a file, before compiled code follows them.

That code believes every index: a child beyond the last node reads foreign memory, and so does a column beyond the last one.
What it believes is checked here, in two steps. `check_tree` sees the arrays before a `Tree` is made of them, as its
constructor already copies by the sizes that it is given. `check_holder` sees each estimator that hands rows to trees, once it
is built and before one of its methods runs: rows of another width than its trees', or fewer columns to write answers to
than it has trees, do the same harm as a wrong index.

Whatever is neither damaged nor known to be harmless leaves with `UnknownUseError`: `load` then asks a person.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError

_TREES: Final = "sklearn.tree._classes."
_BOOSTING: Final = "sklearn.ensemble._gb."
_HISTOGRAMS: Final = "sklearn.ensemble._hist_gradient_boosting."

_BITSET_WORDS: Final = 8
"""A set of categories below 256 in 32 bits each."""


class UnknownUseError(Exception):
    """Trees are used in a way that is not known to be harmless; says how."""


def check_tree(arguments: object, state: object) -> None:
    """Checks what a `sklearn.tree._tree.Tree` is made of.

    Args:
        arguments: its constructor's: the number of columns, of classes per output, and of outputs.
        state: its `__setstate__`'s: the depth, the nodes and their values.

    Raises:
        InvalidInputError: compiled code would leave the tree's memory; says where.
    """
    from sklearn.tree._tree import NODE_DTYPE

    if not (isinstance(arguments, tuple) and len(arguments) == 3):
        raise InvalidInputError("a tree is made of other arguments than three, expected columns, classes and outputs")
    columns, classes, outputs = arguments
    if not (_is_count(columns) and _is_count(outputs)):
        raise InvalidInputError(
            f"a tree has {columns!r:.40} columns and {outputs!r:.40} outputs, expected whole numbers from 1"
        )
    if not (_is_array(classes, np.dtype(np.intp), 1) and len(classes) == outputs and (classes > 0).all()):
        raise InvalidInputError(
            f"a tree's numbers of classes are {_said(classes)}, expected a number from 1 for each of {outputs} outputs"
        )
    if not (type(state) is dict and {"max_depth", "node_count", "nodes", "values"} <= state.keys()):
        raise InvalidInputError("a tree lacks its nodes, values, node_count or max_depth")
    nodes, values = state["nodes"], state["values"]
    if not _is_array(nodes, NODE_DTYPE, 1) or not len(nodes):
        raise InvalidInputError(
            f"a tree's nodes are {_said(nodes)}, expected this scikit-learn's own records in one row"
        )
    shape = (len(nodes), outputs, int(classes.max()))
    if not _is_array(values, np.dtype(np.float64), 3) or values.shape != shape:
        raise InvalidInputError(f"a tree's values are {_said(values)}, expected float64 of the shape {list(shape)}")
    if not _is_count(state["node_count"]) or state["node_count"] != len(nodes):
        raise InvalidInputError(f"a tree has {len(nodes)} nodes, and says that it has {state['node_count']!r:.40}")
    depth = _check_nodes(nodes, nodes["left_child"] == -1, "left_child", "right_child")
    leaves = nodes["left_child"] == -1
    if (nodes["right_child"][leaves] != -1).any():
        raise InvalidInputError("a tree has a node with a right child and no left one, expected two or none")
    _check_splits(nodes[~leaves], "feature", "threshold", columns)
    # The rows' paths are written to arrays of this depth.
    if not (type(state["max_depth"]) is int and depth <= state["max_depth"] <= len(nodes)):
        raise InvalidInputError(f"a tree is {depth} levels deep, and says that it is {state['max_depth']!r:.40}")


def check_holder(holder: object) -> None:
    """Checks an estimator that hands rows to trees, and the trees that no constructor checked.

    Args:
        holder: an instance of a class in `HOLDERS`; nothing is checked where it is not fitted.

    Raises:
        InvalidInputError: compiled code would leave its memory; says where.
        UnknownUseError: the estimator is none that scikit-learn's own fit makes.
    """
    HOLDERS[name_of(holder)](holder)


def name_of(value: object) -> str:
    """The full name of an object's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _check_decision_tree(holder: Any) -> None:
    if "tree_" not in vars(holder):
        return
    _check_own_attributes(holder)
    if name_of(holder.tree_) != "sklearn.tree._tree.Tree":
        raise InvalidInputError(f"a {_short(holder)} holds a {_short(holder.tree_)} for its tree")
    if _columns(holder) != holder.tree_.n_features:
        raise InvalidInputError(
            f"a {_short(holder)} takes {holder.n_features_in_} columns, and its tree {holder.tree_.n_features}"
        )


def _check_gradient_boosting(holder: Any) -> None:
    if "estimators_" not in vars(holder):
        return
    _check_own_attributes(holder)
    trees = holder.estimators_
    if not _is_array(trees, np.dtype(object), 2) or not trees.size:
        raise InvalidInputError(f"a {_short(holder)} holds {_said(trees)} for its trees, expected rows of them")
    for tree in trees.flat:
        if name_of(tree) != f"{_TREES}DecisionTreeRegressor" or "tree_" not in vars(tree):
            raise InvalidInputError(
                f"a {_short(holder)} holds a {_short(tree)}, expected fitted DecisionTreeRegressors"
            )
        _check_decision_tree(tree)
        if _columns(holder) != tree.n_features_in_:
            raise InvalidInputError(
                f"a {_short(holder)} takes {holder.n_features_in_} columns, and one of its trees {tree.n_features_in_}"
            )
    first = _first_outputs(holder)
    # Each tree of a round adds to a column of the first predictions.
    if trees.shape[1] != first:
        raise InvalidInputError(f"a {_short(holder)} has {trees.shape[1]} trees a round, and {first} outputs")


def _first_outputs(holder: Any) -> int:
    """The number of columns of the predictions that the trees are added to."""
    first = _own(holder, "init_")
    if isinstance(first, str) and first == "zero":
        return int(_counted(holder, "n_trees_per_iteration_"))
    is_classifier = _short(holder).endswith("Classifier")
    if name_of(first) != ("sklearn.dummy.DummyClassifier" if is_classifier else "sklearn.dummy.DummyRegressor"):
        raise UnknownUseError(f"a {_short(holder)} begins with the predictions of a {_short(first)}")
    _check_own_attributes(first)
    loss = _own(holder, "_loss")
    _check_loss(loss)
    if not is_classifier:
        is_known = _own(first, "n_outputs_") == 1 and not loss.is_multiclass
    else:
        is_known = _own(first, "_strategy") == "prior" and _own(first, "n_outputs_") == 1
        is_known = is_known and _is_array(_own(first, "class_prior_"), np.dtype(np.float64), 1)
    if not is_known:
        raise UnknownUseError(f"a {_short(holder)} begins with another {_short(first)} than its fit makes")
    return len(first.class_prior_) if loss.is_multiclass else 1


def _check_loss(loss: object) -> None:
    _check_class_attributes(loss, "sklearn._loss.loss")
    _check_class_attributes(_own(loss, "link"), "sklearn._loss.link")


def _check_class_attributes(part: object, module: str) -> None:
    """Refuses a class of another module, and what stands in front of an attribute of the class."""
    if type(part).__module__ != module:
        raise UnknownUseError(f"{name_of(part)} stands for a loss or its link")
    hidden = [name for name in vars(part) if hasattr(type(part), str(name))]
    if hidden:
        raise UnknownUseError(f"a {_short(part)} has {hidden[0]} of its own")


def _check_histograms(holder: Any) -> None:
    if "_predictors" not in vars(holder):
        return
    _check_own_attributes(holder)
    if "_in_fit" in vars(holder):
        raise UnknownUseError(f"a {_short(holder)} is in the middle of its fit")
    columns = _columns(holder)
    mapper = _own(holder, "_bin_mapper")
    if name_of(mapper) != f"{_HISTOGRAMS}binning._BinMapper":
        raise UnknownUseError(f"{name_of(mapper)} bins the columns of a {_short(holder)}")
    _check_own_attributes(mapper)
    categorical = _own(mapper, "is_categorical_")
    if not _is_array(categorical, np.dtype(np.uint8), 1) or len(categorical) != columns:
        raise InvalidInputError(
            f"a {_short(holder)} takes {columns} columns, and says of {_said(categorical)} whether they are categories"
        )
    if _own(holder, "_preprocessor") is not None:
        _check_encoding(holder, columns)
    rounds = _own(holder, "_predictors")
    if type(rounds) is not list or any(type(trees) is not list for trees in rounds):
        raise InvalidInputError(f"a {_short(holder)} holds other trees than lists of them")
    for tree in (tree for trees in rounds for tree in trees):
        _check_predictor(tree, columns, categorical != 0)


def _check_predictor(tree: Any, columns: int, categorical: NDArray[np.bool_]) -> None:
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    fields = {"nodes", "binned_left_cat_bitsets", "raw_left_cat_bitsets"}
    if name_of(tree) != f"{_HISTOGRAMS}predictor.TreePredictor" or vars(tree).keys() != fields:
        raise InvalidInputError(f"a {_short(tree)} stands where a tree with nodes and bitsets is expected")
    nodes = tree.nodes
    if not _is_array(nodes, PREDICTOR_RECORD_DTYPE, 1) or not len(nodes):
        raise InvalidInputError(
            f"a tree's nodes are {_said(nodes)}, expected this scikit-learn's own records in one row"
        )
    leaves = nodes["is_leaf"] != 0
    _check_nodes(nodes, leaves, "left", "right")
    splits = nodes[~leaves]
    _check_splits(splits[splits["is_categorical"] == 0], "feature_idx", "num_threshold", columns)
    splits = splits[splits["is_categorical"] != 0]
    _check_splits(splits, "feature_idx", None, columns)
    if not categorical[splits["feature_idx"]].all():
        raise InvalidInputError("a tree splits a column by categories that is said to hold numbers")
    for bitsets in (tree.raw_left_cat_bitsets, tree.binned_left_cat_bitsets):
        if (
            not _is_array(bitsets, np.dtype(np.uint32), 2)
            or bitsets.shape[1] != _BITSET_WORDS
            or not bitsets.flags.c_contiguous
        ):
            raise InvalidInputError(f"a tree's sets of categories are {_said(bitsets)}, expected uint32 in rows of 8")
        if (splits["bitset_idx"] >= len(bitsets)).any():
            raise InvalidInputError(
                f"a tree names the set {int(splits['bitset_idx'].max())} of categories, expected one of {len(bitsets)}"
            )


def _check_encoding(holder: object, columns: int) -> None:
    """Checks the step before the trees that numbers categories: as many columns leave it as enter it.

    A ColumnTransformer of another build may be as harmless, but fit makes no other.
    """
    encoding = _own(holder, "_preprocessor")
    if name_of(encoding) == "sklearn.compose._column_transformer.ColumnTransformer":
        _check_own_attributes(encoding)
        steps = _encoding_steps(_own(encoding, "transformers_"))
        if steps and _splits_columns(encoding, steps, columns) and _own(encoding, "transformer_weights") is None:
            return
    raise UnknownUseError(f"a {_short(holder)} encodes its categories in another way than its fit makes")


_Step = tuple[str, Any, NDArray[np.bool_]]
"""A name, a transformer, and which columns it takes."""


def _encoding_steps(steps: object) -> list[_Step]:
    """The steps that encode categories and check numbers; none where they are others. Both keep their columns' number."""
    if type(steps) is not list or any(type(step) is not tuple or len(step) != 3 for step in steps):
        return []
    steps = [step for step in steps if not (type(step[1]) is str and step[1] == "drop")]
    if [name_of(step[1]) for step in steps] != [
        "sklearn.preprocessing._encoders.OrdinalEncoder",
        "sklearn.preprocessing._function_transformer.FunctionTransformer",
    ]:
        return []
    numbers = steps[1][1]
    for _, transformer, _ in steps:
        _check_own_attributes(transformer)
    return steps if _is_check(_own(numbers, "func")) and _own(numbers, "kw_args") is None else []


def _splits_columns(encoding: object, steps: Sequence[_Step], columns: int) -> bool:
    """Whether each column goes to one of two steps, in arrays and, by its name, in frames."""
    (one, _, first), (other, _, second) = steps
    masks = all(_is_array(mask, np.dtype(bool), 1) and len(mask) == columns for mask in (first, second))
    if not masks or not (first ^ second).all() or _columns(encoding) != columns:
        return False
    names = vars(encoding).get("feature_names_in_")
    if names is not None and not (_is_array(names, np.dtype(object), 1) and all(type(name) is str for name in names)):
        return False
    indices = _own(encoding, "_transformer_to_input_indices")
    return (
        type(indices) is dict
        and one != other
        and {one, other} <= indices.keys()
        and np.array_equal(indices[one], np.flatnonzero(first))
        and np.array_equal(indices[other], np.flatnonzero(second))
        and _own(encoding, "sparse_output_") is False
    )


def _is_check(function: object) -> bool:
    """Whether a function is the one that HistGradientBoosting checks its numbers with."""
    from sklearn.utils.validation import check_array

    known = {"dtype": [np.float64], "ensure_all_finite": False}
    return (
        type(function) is functools.partial
        and function.func is check_array
        and (function.args, function.keywords) == ((), known)
    )


GROWN_TREES: Final = frozenset(
    f"{_TREES}{name}{kind}" for name in ("DecisionTree", "ExtraTree") for kind in ("Classifier", "Regressor")
)
"""The classes that hold a `Tree`."""
HISTOGRAMS: Final = frozenset(
    f"{_HISTOGRAMS}gradient_boosting.HistGradientBoosting{kind}" for kind in ("Classifier", "Regressor")
)
"""The classes that hold a `TreePredictor`."""
HOLDERS: Final[Mapping[str, Callable[[Any], None]]] = {
    **dict.fromkeys(GROWN_TREES, _check_decision_tree),
    **dict.fromkeys(HISTOGRAMS, _check_histograms),
    f"{_BOOSTING}GradientBoostingClassifier": _check_gradient_boosting,
    f"{_BOOSTING}GradientBoostingRegressor": _check_gradient_boosting,
}
"""The classes that call compiled code with their trees. Forests, Bagging and AdaBoost leave that to the trees they hold."""


def _check_own_attributes(holder: object) -> None:
    """Refuses what stands in front of a method: an object's own attribute is found before its class's."""
    for name in vars(holder):
        if isinstance(name, str) and callable(getattr(type(holder), name, None)):
            raise InvalidInputError(f"a {_short(holder)} has an attribute {name}, which is a method of its class")


def _check_nodes(nodes: NDArray[Any], leaves: NDArray[np.bool_], left: str, right: str) -> int:
    """The depth of nodes that are a tree: each but the first has one parent, which comes before it.

    So each walk from the first node ends, and ends at a leaf.
    """
    splits = np.flatnonzero(~leaves)
    lefts, rights = nodes[left].astype(np.int64), nodes[right].astype(np.int64)
    for children in (lefts[splits], rights[splits]):
        wrong = (children <= splits) | (children >= len(nodes))
        if wrong.any():
            raise InvalidInputError(
                f"node {splits[wrong][0]} of a tree has the child {children[wrong][0]}, "
                f"expected a later one of its {len(nodes)} nodes"
            )
    parents = np.bincount(np.concatenate([lefts[splits], rights[splits]]), minlength=len(nodes))
    wrong = parents[1:] != 1
    if wrong.any():
        at = 1 + int(np.flatnonzero(wrong)[0])
        raise InvalidInputError(f"node {at} of a tree has {parents[at]} parents, expected one")
    depth, level = 0, np.zeros(1, np.int64)
    while (level := level[~leaves[level]]).size:
        level = np.concatenate([lefts[level], rights[level]])
        depth += 1
    return depth


def _check_splits(splits: NDArray[Any], column: str, threshold: str | None, columns: int) -> None:
    wrong = (splits[column] < 0) | (splits[column] >= columns)
    if wrong.any():
        raise InvalidInputError(f"a tree splits column {splits[column][wrong][0]}, expected one of {columns}")
    if threshold is not None and np.isnan(splits[threshold]).any():
        raise InvalidInputError("a tree splits a column at NaN, expected a number")


def _columns(holder: Any) -> int:
    """The number of columns that an estimator takes; it takes any number where it does not know it."""
    return int(_counted(holder, "n_features_in_"))


def _counted(holder: object, name: str) -> Any:
    value = _own(holder, name)
    if not _is_count(value):
        raise InvalidInputError(f"a {_short(holder)} has {value!r:.40} for {name}, expected a whole number from 1")
    return value


def _own(holder: object, name: str) -> Any:
    try:
        return vars(holder)[name]
    except (KeyError, TypeError):
        raise InvalidInputError(f"a {_short(holder)} lacks its {name}, which its fit makes") from None


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= np.iinfo(np.int32).max


def _is_array(value: object, dtype: np.dtype[Any], dimensions: int) -> bool:
    return type(value) is np.ndarray and value.dtype == dtype and value.ndim == dimensions


def _said(value: object) -> str:
    if isinstance(value, np.ndarray):
        dtype = "records" if value.dtype.names else str(value.dtype)
        return f"{dtype} of the shape {list(value.shape)}"
    return f"a {_short(value)}"


def _short(value: object) -> str:
    return type(value).__name__
