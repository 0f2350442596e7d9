"""Columns that stay as they were one by one, and no longer belong together: seen by a server that samples its traffic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from penstock_client import Client
from penstock_tools.drift import fetch

Server = Any  # the process that conftest starts
SETTINGS = """
[drift]
skip_repeats = false
"""


def rows(seed: int, count: int, together: float) -> dict[str, np.ndarray[Any, Any]]:
    """Two normal columns with this correlation, and a city that says nothing."""
    rng = np.random.default_rng(seed)
    age = rng.normal(size=count)
    income = together * age + np.sqrt(1 - together**2) * rng.normal(size=count)
    return {"age": age, "income": income, "city": rng.choice(np.array(["Oslo", "Bergen"], object), count)}


def put_incomes(repository: Path, put_version: Callable[..., Path]) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from penstock_server.models import artifact
    from penstock_tools.publish import golden
    from penstock_tools.publish.pipeline import prepare

    table = rows(0, 8000, 0.9)
    columns = make_column_transformer((StandardScaler(), ["age", "income"]), (OneHotEncoder(), ["city"]))
    frame = pd.DataFrame(table)
    prepared = prepare(make_pipeline(columns, LogisticRegression()).fit(frame, table["age"] > 0), frame)
    baseline = golden.fit_baseline(prepared.graph, prepared.pipeline, table)
    folder = put_version(repository, "incomes", "1", prepared.graph.model.SerializeToString())
    artifact.write(folder, features=prepared.features, baseline=baseline)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, put_version: Any, start_shared: Any) -> Server:
    folder = tmp_path_factory.mktemp("repository")
    put_incomes(folder, put_version)
    settings = folder.parent / "penstock.toml"
    settings.write_text(SETTINGS)
    return start_shared("--model-repository", str(folder), "--config", str(settings)).wait_ready()


def test_a_pair_drifts_whose_columns_do_not(server: Server, until: Any) -> None:
    with Client(server.grpc, timeout_s=30) as client:
        seeds = iter(range(1, 10_000))

        def judged() -> Any:
            client.predict("incomes", rows(next(seeds), 100, 0.0))
            (version,) = fetch.report_of(client.drift_state("incomes")).versions
            assert version.joint is not None
            return version if any(one.drifted for one in version.joint.pairs) else None

        version = until(judged, "a pair drifted")
        columns = {column.name: column.psi_unbiased for column in version.columns}
        pairs = {(one.first, one.second): one for one in version.joint.pairs}
        pair = pairs["age", "income"]
        assert (pair.drifted, pairs["age", "city"].drifted, pairs["income", "city"].drifted) == (True, False, False)
        assert pair.association_reference > 0.5
        assert pair.association < 0.2
        assert columns["age"] == pytest.approx(0, abs=0.1)
        assert columns["income"] == pytest.approx(0, abs=0.1)
        # The model reads both, so that its answers for a range of one are others than in training.
        segments = {(one.column, one.segment): one for one in version.joint.segments}
        assert {column for column, _ in segments} == {"age", "income", "city"}
        assert "penstock_drifted_pairs" in server.get("/metrics")


def test_one_row_at_a_time_is_sampled_too(server: Server, until: Any) -> None:
    """Kernels answer such requests by themselves; now and then they leave one to be counted."""
    with Client(server.grpc, timeout_s=30) as client:

        def sampled() -> int:
            (version,) = client.drift_state("incomes").versions
            return version.joint.rows

        before = sampled()

        def more() -> bool:
            for seed in range(200):
                client.predict("incomes", rows(seed, 1, 0.9))
            return sampled() >= before + 3

        until(more, "three rows more were counted")
