"""What a record of trees says, computed in numpy: the oracle for whoever writes or explains trees."""

import numpy as np
from scipy.special import expit, softmax

from penstock_tools.sklearn_compiler.trees import LEAF

ZERO = float(np.float32(1e-35))


def leaves(ensemble, rows):
    """The leaf that each row reaches in each tree: [rows, trees]."""
    compared = np.asarray(rows, np.float64)
    if ensemble.precision == "FP32":
        compared = compared.astype(np.float32).astype(np.float64)
    compared = compared.copy()
    compared[compared == ensemble.missing] = np.nan
    for column in ensemble.zero_is_missing:
        compared[np.abs(compared[:, column]) <= ZERO, column] = np.nan
    return np.array([[_leaf(tree, ensemble.decision, row) for tree in ensemble.trees] for row in compared])


def _leaf(tree, decision, row):
    node = 0
    while tree.feature[node] != LEAF:
        value = row[tree.feature[node]]
        codes = tree.categories[node] if tree.categories else None
        if np.isnan(value):
            is_left = tree.missing_left[node]
        elif codes is not None:
            is_left = np.floor(value) in codes
        elif decision == "<=":
            is_left = value <= tree.threshold[node]
        else:
            is_left = value < tree.threshold[node]
        node = tree.left[node] if is_left else tree.right[node]
    return node


def sums(ensemble, rows):
    """Base and leaves summed: [rows, outputs]."""
    at = leaves(ensemble, rows)
    return ensemble.base + sum(tree.value[at[:, k]] for k, tree in enumerate(ensemble.trees))


def answers(ensemble, rows):
    """The link of the sums: [rows, outputs]."""
    scaled = ensemble.link_scale * sums(ensemble, rows)
    return LINKS[ensemble.link](scaled)


LINKS = {
    "identity": lambda s: s,
    "logistic": expit,
    "softmax": lambda s: softmax(s, axis=1),
    "exp": np.exp,
    "normalise": lambda s: s / s.sum(axis=1, keepdims=True),
    "isolation": lambda s: -(2.0**s),
}
