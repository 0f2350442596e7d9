"""Why this answer: attributions over the wire, from a real server, and the importance that a drift report shows."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from penstock_client import Client, UnsupportedError
from penstock_tools.client_commands import predict
from penstock_tools.drift import fetch

Server = Any  # the process that conftest starts


def rows(count: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    city = rng.choice(np.array(["Oslo", "Bergen", "Bodø"], object), count)
    return pd.DataFrame({"delay": rng.normal(size=count), "city": city, "idle": rng.normal(size=count)})


def put_versions(repository: Path, put_version: Callable[..., Path]) -> Any:
    """Version 1 is explained and has its importance, version 2 says why it is not explained; returns the pipeline of 1."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from penstock_server.drift.fit import fit_baseline
    from penstock_server.models import artifact
    from penstock_tools.explain.explanation import explained
    from penstock_tools.explain.importance import importance
    from penstock_tools.publish.pipeline import prepare

    frame = rows()
    late = (frame["delay"] + (frame["city"] == "Oslo") > 0.3).to_numpy()
    fitted = []
    for name, model in (
        ("trains", GradientBoostingClassifier(n_estimators=20)),
        ("neighbours", KNeighborsClassifier()),
    ):
        columns = make_column_transformer(("passthrough", ["delay", "idle"]), (OneHotEncoder(), ["city"]))
        fitted.append(make_pipeline(columns, model).fit(frame, late))
        prepared = prepare(fitted[-1], frame)
        folder = put_version(repository, name, "1", prepared.graph.model.SerializeToString())
        graph, sample = prepared.graph, prepared.compiled.sample
        artifact.write(
            folder,
            features=prepared.features,
            baseline=fit_baseline(prepared.features, sample.on_the_wire()),
            explanation=explained(prepared.compiled, prepared.pipeline),
            importance=importance(prepared.pipeline, graph.runtime, sample, classes=graph.classes, labels=late),
        )
    return fitted[0]


@pytest.fixture(scope="module")
def served(
    start_shared: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, put_version: Callable[..., Path]
) -> Iterator[tuple[Server, Client, Any]]:
    repository = tmp_path_factory.mktemp("explained")
    pipeline = put_versions(repository, put_version)
    server = start_shared("--model-repository", str(repository)).wait_ready()
    with Client(server.grpc) as client:
        yield server, client, pipeline


def test_base_and_attributions_add_up_to_the_log_odds(served: tuple[Server, Client, Any]) -> None:
    _, client, pipeline = served
    asked = rows().iloc[:5]
    plain, explained = client.predict("trains", asked), client.predict("trains", asked, explain=True)
    assert plain.attributions is None
    assert list(explained) == list(plain)
    np.testing.assert_array_equal(explained["probabilities"], plain["probabilities"])
    found = explained.attributions
    assert found is not None
    assert (sorted(found.columns), found.of, found.classes) == (["city", "delay", "idle"], "the log-odds", ("1",))
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), pipeline.decision_function(asked), atol=1e-5)
    assert found.top(0, 1)[0][0] in {"delay", "city"}


def test_attributions_are_an_output_that_may_be_named(served: tuple[Server, Client, Any]) -> None:
    _, client, _ = served
    one = rows().iloc[:1]
    named = client.predict("trains", one, outputs=["penstock_attributions"])
    again = client.predict("trains", one, outputs=["label"], explain=True)
    assert list(named) == ["penstock_attributions"]
    assert list(again) == ["label"]
    assert again.attributions is not None
    np.testing.assert_array_equal(named["penstock_attributions"], again.attributions.values)


def test_metadata_says_what_can_be_explained_and_lists_no_further_output(served: tuple[Server, Client, Any]) -> None:
    _, client, _ = served
    assert [spec.name for spec in client.metadata("trains").outputs] == ["label", "probabilities"]


def test_a_version_that_cannot_explain_says_why(served: tuple[Server, Client, Any]) -> None:
    _, client, _ = served
    with pytest.raises(UnsupportedError, match="KNeighborsClassifier is neither a linear model nor a sum of trees"):
        client.predict("neighbours", rows().iloc[:1], explain=True)
    assert len(client.predict("neighbours", rows().iloc[:1])["label"]) == 1


def test_the_command_line_shows_what_moved_each_row(
    served: tuple[Server, Client, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, _, _ = served
    file = tmp_path / "rows.csv"
    rows().iloc[:2].to_csv(file, index=False)
    prediction = predict.predict("trains", str(file), server=server.grpc, explain=True)
    predict.show(prediction)
    shown = capsys.readouterr().out
    assert "row 1: the log-odds of 1 is" in shown
    assert "TreeSHAP, path-dependent" in shown
    printed = json.loads(predict.as_json(prediction))["attributions"]
    assert sorted(printed["columns"]) == ["city", "delay", "idle"]


def test_explained_rows_are_counted_and_drift_shows_importance(served: tuple[Server, Client, Any]) -> None:
    server, client, _ = served
    many = rows(1000)
    for at in range(0, 1000, 50):
        client.predict("trains", many.iloc[at : at + 50], explain=True)
    deadline = time.monotonic() + 30
    while (drift := fetch.version_of(fetch.fetch(server.grpc, "trains"), "trains")).rows < 1000:
        assert time.monotonic() < deadline, f"{drift.rows} rows are counted, expected 1000"
        threading.Event().wait(0.05)  # rows are counted after their answer has left
    found = {column.name: column.importance for column in drift.columns}
    assert drift.importance_measure == "AUC lost"
    assert found["delay"] > found["city"] > found["idle"]
    assert fetch.version_of(fetch.fetch(f"http://{server.http}", "trains"), "trains").importance_measure == "AUC lost"
