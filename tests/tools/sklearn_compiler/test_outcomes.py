import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_info, threadpool_limits

from penstock_server.features.pipeline import Pipeline
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler import edges
from penstock_tools.sklearn_compiler.forms import form_of
from tests.tools.sklearn_compiler.test_edges import unsettled

FARES = pd.DataFrame({"fare": np.arange(60.0)})


class Watched(LinearRegression):
    """Notes how many threads it has each time that it is asked."""

    def predict(self, rows):
        self.threads_ = [*getattr(self, "threads_", []), max(each["num_threads"] for each in threadpool_info())]
        return super().predict(rows)


@pytest.fixture
def two_threads():
    with threadpool_limits(2):
        yield


@pytest.mark.usefixtures("two_threads")
def test_questions_are_answered_with_one_thread():
    model = Watched().fit(FARES, FARES["fare"])
    form_of(model, FARES)
    assert set(model.threads_) == {1}
    found = prepare(LinearRegression().fit(FARES, FARES["fare"]), FARES)
    built = Pipeline(unsettled(found.features))
    edges.settled(model, found.compiled.sample, built, found.graph.runtime)
    assert set(model.threads_) == {1}
    assert max(each["num_threads"] for each in threadpool_info()) == 2
