"""scikit-learn's outputs and the compiled specification's, compared."""

import warnings

import numpy as np
import pytest
from scipy import sparse

from penstock_server.features.pipeline import Pipeline
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.sample import pipeline_sample


def both(transformer, compiled, rows):
    """What scikit-learn's fitted transformer gives for the rows, and what its compiled specification gives."""
    given = pipeline_sample(transformer, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = transformer.transform(given.as_float64())
    expected = expected.toarray() if sparse.issparse(expected) else np.asarray(expected, np.float64)
    return expected, compiled.transform(given.on_the_wire())


@pytest.fixture
def assert_equal():
    """Asserts that both sides give the same: every bit, or within `ulps` units in the last place of a column's largest."""

    known = []

    def compiled(transformer, frame):
        # A test asks the same about several rows. None changes what it has asked about.
        for one, other, made in known:
            if one is transformer and other is frame:
                return made
        known.append((transformer, frame, Pipeline(compile_pipeline(transformer, frame).features("FP64"))))
        return known[-1][-1]

    def check(transformer, frame, rows=None, ulps=0):
        expected, got = both(transformer, compiled(transformer, frame), frame if rows is None else rows)
        assert got.shape == expected.shape
        if not ulps:
            np.testing.assert_array_equal(got, expected)
            return
        scale = np.max(np.abs(np.where(np.isfinite(expected), expected, 0.0)), axis=0, initial=0.0)
        is_same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            off = np.where(is_same, 0.0, np.abs(got - expected) / np.spacing(np.maximum(scale, np.finfo(float).tiny)))
        assert not np.isnan(off).any()
        assert off.max() <= ulps

    return check
