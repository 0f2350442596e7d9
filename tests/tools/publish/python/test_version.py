"""Pipelines that cannot be compiled, published for servers that run Python, with real processes."""

import os

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock_server.errors import InvalidInputError, ModelFailedError, UnsupportedError
from penstock_server.models import artifact
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish import summary
from penstock_tools.publish.pipeline import prepare_any, publish_pipeline
from penstock_tools.publish.python import version
from penstock_tools.publish.python.version import PreparedPython

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Ranks(BaseEstimator, TransformerMixin):
    """A step that no rule compiles: what it does to a text depends on a loop over its letters."""

    def fit(self, rows, answers=None):
        self.fitted_ = True
        return self

    def transform(self, rows):
        changed = rows.copy()
        changed["city"] = [sum(map(ord, str(city))) % 7 for city in rows["city"]]
        return changed


COLUMNS = ["fare", "class", "city"]


@pytest.fixture
def fitted(frame, answers):
    steps = make_column_transformer(
        (StandardScaler(), ["fare"]), (OneHotEncoder(handle_unknown="ignore"), ["class", "city"])
    )
    return make_pipeline(Ranks(), steps, LogisticRegression()).fit(frame[COLUMNS], answers["text"])


def test_it_is_refused_unless_python_is_allowed(fitted, frame):
    with pytest.raises(UnsupportedError, match="Ranks"):
        prepare_any(fitted, frame)


@pytest.mark.long
def test_it_is_kept_proven_registered_and_says_what_it_costs(
    fitted, frame, answers, registry, client, tmp_path, capsys
):
    sample, newest_first = frame[COLUMNS].sort_values("fare"), np.arange(len(frame))[::-1]
    published = publish_pipeline(
        "odd", fitted, sample, answers["text"], alias="champion", allow_python=True, time=newest_first,
        holdout=(frame, answers["text"]),
    )  # fmt: skip
    prepared = published.prepared
    assert isinstance(prepared, PreparedPython)
    assert "Ranks" in prepared.reason
    assert prepared.kept.by_value
    assert prepared.row_s > 0
    found = artifact.read(MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("odd", "1"))
    assert found.python == prepared.description
    assert (found.manifest.class_output, found.manifest.classes) == ("label", tuple(fitted.classes_))
    assert [column.name for column in found.baseline.columns] == COLUMNS
    assert found.baseline.predictions is not None
    assert (found.baseline.order, found.baseline.ordered_by) == ("time", ("time",))
    assert found.baseline.columns[0].dispersion > 5
    assert published.decisions[0].startswith("drift of 3 columns, of the predictions and of confidence is watched")
    right = np.sum(fitted.predict(frame[COLUMNS]) == answers["text"])
    assert sum(found.baseline.answers[0].holdout.correct) == right
    assert published.decisions[1].startswith(
        f"of the {len(frame)} rows of the hold-out {right / len(frame):.1%} are right"
    )
    assert found.golden is not None
    metrics = client.get_run(client.get_model_version("odd", "1").run_id).data.metrics
    assert metrics["accuracy"] == published.scores["accuracy"]
    summary.show(prepared, published.scores)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Python, in a process of its own" in shown
    assert "Ranks" in shown


def test_a_pickle_needs_agreement(fitted, frame):
    asked = []
    with pytest.raises(InvalidInputError, match="--trust agrees to a pickle"):
        version.prepare(fitted, frame, "a reason", agree=lambda warning: asked.append(warning) or False)
    assert "runs whatever code the version holds" in asked[0]


class Restless(BaseEstimator):
    """Answers with what only its own process knows, for rows that no golden request holds."""

    def predict(self, rows):
        return np.where(rows["x"] == 7.0, float(os.getpid()), rows["x"])


@pytest.mark.long
def test_what_answers_otherwise_in_its_process_is_refused():
    rows = pd.DataFrame({"x": np.arange(100.0)})
    with pytest.raises(ModelFailedError, match=rf"'prediction' of row 7 is [0-9.]+ instead of {os.getpid()}.0"):
        version.prepare(Restless(), rows, "a reason", agree=lambda _: True)


@pytest.mark.long
def test_what_the_compiler_fails_on_is_kept_too(fitted, frame, monkeypatch):
    monkeypatch.setattr("penstock_tools.publish.pipeline.compile_pipeline", lambda *_: {}["nothing"])
    prepared = prepare_any(fitted, frame, allow_python=True)
    assert prepared.reason == "compiling it failed with KeyError: 'nothing'"
    with pytest.raises(KeyError):
        prepare_any(fitted, frame)
    with pytest.raises(UnsupportedError, match="the pipeline refuses the sample: KeyError: 'city'"):
        prepare_any(fitted, frame.drop(columns="city"), allow_python=True)
