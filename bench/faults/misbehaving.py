"""A scikit-learn pipeline that misbehaves for marked rows, and that nothing compiles; published for servers that run Python.

Its class is of a module that is not installed where it is served, so it is in the version's file by value.
"""

import os
import signal
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

CRASH, LOOP, EAT = -1.0, -2.0, -3.0
"""What a row holds that crashes the process, loops without end, or takes 4 GB."""


class Misbehaving(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """Gives its rows back, after it has done what the marked ones ask for."""

    def fit(self, rows: Any, answers: Any = None) -> "Misbehaving":  # noqa: ARG002 - scikit-learn's signature
        self.is_fitted_ = True
        return self

    def transform(self, rows: Any) -> Any:
        for value in np.asarray(rows)[:, 0].tolist():
            if value == CRASH:
                os.kill(os.getpid(), signal.SIGSEGV)
            while value == LOOP:
                pass
            if value == EAT:
                np.ones(4 << 27).sum()
        return rows


def sample() -> Any:
    """Rows of two numbers."""
    return pd.DataFrame(np.random.default_rng(0).uniform(1, 9, (200, 2)), columns=["x", "z"])


def fitted() -> Any:
    """y = x + z, behind the step that misbehaves."""
    rows = sample()
    return make_pipeline(Misbehaving(), LinearRegression()).fit(rows, rows["x"] + rows["z"])
