"""Everything at once against a real server, for seconds: streams, failures, cancellations, deadlines, priorities, promotions.

Every answer is compared with the row that was asked. `python -m bench.faults --only mix` runs the same for minutes,
and so does the nightly job (`PENSTOCK_MIX_S`).
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.faults.mix import questions
from bench.faults.mix import run as mix
from bench.faults.registry import FaultRegistry
from bench.faults.served import ServerState, switch_threads_often

DURATION_S = float(os.environ.get("PENSTOCK_MIX_S", "10"))
MAX_GROWTH = 1.5
"""Caches and batches of new sizes still grow in the first seconds."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(180 + 2 * DURATION_S)
@pytest.mark.parametrize("workers", [1, 2])
async def test_the_standing_mix_gets_right_answers_and_leaves_nothing(
    start: Any,
    until: Any,
    environment: dict[str, str],
    empty_registry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    if workers == 1:  # races of a worker's threads are met within seconds
        often = tmp_path / "often"
        switch_threads_often(often)
        monkeypatch.setitem(environment, "PYTHONPATH", os.pathsep.join([str(often), environment["PYTHONPATH"]]))
    repository, folder = tmp_path / "repository", tmp_path / "registry"
    folder.mkdir()
    shutil.copy(empty_registry, folder / "registry.db")
    questions.write(repository)
    registry = FaultRegistry(folder)
    questions.register(registry)
    config = tmp_path / "penstock.toml"
    config.write_text(questions.SETTINGS)
    server = start(
        *("--registry", registry.uri, "--model-repository", str(repository)),
        *("--config", str(config), "--workers", str(workers)),
    )
    await asyncio.to_thread(server.wait_ready)
    state = ServerState(server.http, server.pid)
    models = {*questions.MODELS, questions.FRAGILE}
    await asyncio.to_thread(until, lambda: state.are_ready(models), "every model is ready")
    result = await mix.run(
        server.grpc, state, repository=repository, registry=registry, duration_s=DURATION_S, asking=32, seed=workers
    )
    assert result.faults(max_growth=MAX_GROWTH) == []
    # The mix was one: something of everything happened.
    codes = result.tally.codes
    assert result.tally.answers > 1000
    assert codes["unary", "INTERNAL"]
    assert codes["unary", "DEADLINE_EXCEEDED"]
    assert codes["cancelled", "CANCELLED"]
    assert codes["stream with status, whole", "INTERNAL"]
    assert codes["stream", "error"]
    assert codes["by version", "OK"]
    assert result.changes["promotions"]
    assert result.changes["moved aliases"]
    assert result.changes["cut calls"]
