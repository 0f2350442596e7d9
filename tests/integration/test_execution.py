"""Execution providers from the settings file to the index, by the onnxruntime that is installed: one without devices."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.models import mlp
from penstock_client import Client
from penstock_server.models import onnx_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "CUDAExecutionProvider" in onnx_model.available(), reason="this onnxruntime has what it is to lack"
    ),
]


@pytest.fixture
def repository(tmp_path: Path, put_version: Callable[..., Path]) -> Path:
    put_version(tmp_path / "models", "wide", "1", mlp(layers=(4, 512, 512, 1)))
    return tmp_path / "models"


def test_a_server_says_what_versions_run_on_in_place_of_what_was_preferred(
    repository: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    settings = tmp_path / "penstock.toml"
    settings.write_text('[execution]\nproviders = ["cuda", "cpu"]\nmemory_mib = 64\n')
    server = start("--model-repository", str(repository), "--config", str(settings)).wait_ready()
    (row,) = server.models()
    engine, _, why = row["engine"].partition(": ")
    assert (row["state"], engine) == ("READY", "onnxruntime on cpu")
    assert why.startswith("the installed onnxruntime does not offer cuda; run: ")
    with Client(server.grpc) as client:
        rows = np.ones((300, 4), np.float32)
        assert client.predict("wide", rows)["scores"].shape == (300, 1)
    loaded = [json.loads(line) for line in server._log.read_text().splitlines() if '"version loaded"' in line]
    assert [line["engine"] for line in loaded] == [row["engine"]]


def test_a_server_that_must_not_use_the_cpu_does_not_start(
    repository: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    settings = tmp_path / "penstock.toml"
    settings.write_text('[execution.models.wide]\nproviders = ["cuda"]\n')
    error = start("--model-repository", str(repository), "--config", str(settings)).error()
    assert "execution.models.wide.providers is ['cuda']: the installed onnxruntime does not offer cuda; run: " in error
    assert "Traceback" not in error
