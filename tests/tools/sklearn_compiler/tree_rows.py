"""Rows for the tests of trees: training rows, and rows that sit on thresholds and next to them."""

import numpy as np

from penstock_tools.sklearn_compiler.trees import LEAF

RANDOM = np.random.default_rng(7)
ROWS = np.round(RANDOM.normal(size=(400, 4)), 2)
ANSWERS = ROWS[:, 0] * ROWS[:, 1] + np.sin(3 * ROWS[:, 2])
CLASSES = np.digitize(ANSWERS, [-0.6, 0.6])


def around_thresholds(ensemble, rows, count=300, missing=False):
    """Rows [count, columns] with values exactly on the ensemble's thresholds and next to them, in both precisions."""
    found = [
        (column, threshold)
        for tree in ensemble.trees
        for column, threshold, codes in zip(
            tree.feature, tree.threshold, tree.categories or (None,) * len(tree.feature), strict=True
        )
        if column != LEAF and codes is None
    ]
    made = rows[RANDOM.integers(0, len(rows), count)].astype(np.float64)
    if not found:
        return made
    for row in made:
        for at in RANDOM.integers(0, len(found), 3):
            column, threshold = found[at]
            single = np.float32(threshold)
            row[column] = RANDOM.choice(
                [
                    threshold,
                    np.nextafter(threshold, np.inf),
                    np.nextafter(threshold, -np.inf),
                    single,
                    np.nextafter(single, np.float32(np.inf)),
                    np.nextafter(single, np.float32(-np.inf)),
                ]
            )
        if missing and RANDOM.random() < 0.3:
            row[RANDOM.integers(0, made.shape[1])] = RANDOM.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-36])
    return made
