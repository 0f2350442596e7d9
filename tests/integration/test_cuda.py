"""Graphs on a real CUDA device: their answers, batches and memory, and a server in front. Skipped where there is none."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.networks import MEASURED, Measured
from penstock_client import Client
from penstock_server.batching.limits import BatchLimits, resolve
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models import onnx_model
from penstock_server.models.execution import ExecutionSettings
from penstock_server.models.loader import load
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable

NETWORKS = {name: graph for name, graph in MEASURED.items() if name != "trees"}
TOLERANCE = 1e-4
"""As a share of the largest answer: a device adds up in another order, and float32 resolves 1e-7."""
ROW_TOLERANCE = 1e-5
"""Between a row alone and among others, whose products are added up in other blocks."""
MIB = 1 << 20


@cache
def no_device() -> str:
    """Why nothing here can run; "" where it can."""
    if "CUDAExecutionProvider" not in onnx_model.available():
        return "the installed onnxruntime does not offer cuda"
    try:
        count = ctypes.c_int()
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except OSError:
        return "there is no driver of CUDA"
    return "" if not failed and count.value else "there is no CUDA device"


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(no_device()), reason=no_device() or "there is one")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A version's folder of each graph."""
    made = {}
    for name, graph in MEASURED.items():
        made[name] = tmp_path_factory.mktemp(name) / "1"
        made[name].mkdir()
        (made[name] / "model.onnx").write_bytes(graph.make())
    return made


@pytest.fixture
def loaded(folders: dict[str, Path]) -> Iterator[Callable[..., tuple[OnnxServable, Any]]]:
    """Loads a graph as a server does, with what its batches cost; closed afterwards."""
    opened: list[OnnxServable] = []

    def make(name: str, *providers: str, **settings: Any) -> tuple[OnnxServable, Any]:
        execution = ExecutionSettings(providers or ("cuda", "cpu"), **settings)
        rows = BatchLimits().warmed_rows(has_device=True)
        servable, cost = load((name, "1"), folders[name], threads=1, max_rows=rows, execution=execution)
        assert isinstance(servable, OnnxServable)
        opened.append(servable)
        return servable, cost

    yield make
    for servable in opened:
        servable.close()


def answers(servable: OnnxServable, rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(servable.predict([rows.tobytes()], len(rows), None, None).arrays[-1])


def apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(one - other).max() / np.abs(other).max())


def used_mib() -> float:
    """What is taken of the device's memory, by all processes."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    runtime = ctypes.CDLL("libcudart.so.13")
    assert runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    return (total.value - free.value) / MIB


@pytest.mark.parametrize("name", NETWORKS)
def test_a_device_answers_as_the_cpu_does_in_any_company(
    name: str, loaded: Callable[..., Any], folders: dict[str, Path]
) -> None:
    graph = NETWORKS[name]
    servable, _ = loaded(name)
    assert servable.is_on_device, servable.engine
    assert servable.engine.startswith("onnxruntime on cuda"), servable.engine
    assert servable.batching is not None
    assert servable.batching.batching == "rows", servable.batching.reason
    rows = graph.rows(64)
    together = answers(servable, rows)
    on_cpu = OnnxModel(folders[name] / "model.onnx")
    assert apart(together, on_cpu.run(on_cpu.feeds([rows.tobytes()], [rows.shape]))[-1]) < TOLERANCE
    alone = np.concatenate([answers(servable, row[None]) for row in rows])
    assert apart(alone, together) < ROW_TOLERANCE
    order = np.random.default_rng(2).permutation(64)
    assert apart(answers(servable, rows[order]), together[order]) < ROW_TOLERANCE
    # Beside other rows than its own, and the largest ones that floats hold without overflow in a product.
    strange = graph.rows(63, seed=9)
    beside = answers(servable, np.concatenate([rows[:1], strange if strange.dtype.kind == "i" else strange * 1e3]))
    assert apart(beside[:1], together[:1]) < ROW_TOLERANCE
    assert np.array_equal(answers(servable, rows), answers(servable, rows)), "the same batch, the same answer"


@pytest.mark.usefixtures("cache_folder")  # which has them compiled
def test_trees_stay_kernels_beside_a_device(loaded: Callable[..., Any]) -> None:
    servable, _ = loaded("trees")
    assert not servable.is_on_device
    assert servable.engine.startswith("kernels"), servable.engine


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_are_as_large_as_the_device_is_good_for(name: str, loaded: Callable[..., Any]) -> None:
    servable, cost = loaded(name)
    limits, is_inline = resolve(BatchLimits(), cost, 0.001, is_on_device=True, most_rows=servable.most_rows)
    assert not is_inline
    on_cpu, cpu_cost = loaded(name, "cpu")
    cpu_limits, _ = resolve(BatchLimits(), cpu_cost, 0.001)
    assert limits.most_rows >= 4 * cpu_limits.most_rows
    assert cost.of(64) * 4 < cpu_cost.of(64)
    assert not on_cpu.is_on_device


def test_batches_of_all_sizes_take_no_longer_than_larger_ones(loaded: Callable[..., Any]) -> None:
    """onnxruntime plans each convolution anew for each new size, which took 50 to 100 ms for this graph."""
    servable, _ = loaded("convolutional")
    assert ": in batches of 1, 4, 16, 64" in servable.engine, servable.engine
    rows = NETWORKS["convolutional"].rows(64)
    expected = answers(servable, rows)
    took_s = []
    for size in np.random.default_rng(3).integers(1, 64, 60):
        started = perf_counter()
        got = answers(servable, rows[:size])
        took_s.append(perf_counter() - started)
        assert apart(got, expected[:size]) < ROW_TOLERANCE
    assert np.median(took_s) < 0.02
    for name in ("perceptron", "transformer"):
        other, _ = loaded(name)
        assert "in batches of" not in other.engine, "nothing is planned for it"


def test_what_does_not_fit_the_memory_is_batched_smaller_or_refused(loaded: Callable[..., Any]) -> None:
    servable, _ = loaded("convolutional", "cuda", memory_mib=256)
    assert servable.most_rows is not None
    assert "for want of device memory" in servable.batching_note
    graph = NETWORKS["convolutional"]
    assert answers(servable, graph.rows(servable.most_rows)).shape == (servable.most_rows, 10)
    with pytest.raises(InvalidInputError, match="memory"):
        loaded("convolutional", "cuda", memory_mib=8)


def test_a_closed_version_leaves_the_device_s_memory(loaded: Callable[..., Any]) -> None:
    servable, _ = loaded("convolutional")
    answers(servable, NETWORKS["convolutional"].rows(256))
    held = used_mib()
    servable.close()
    freed = used_mib()
    assert held - freed > 256, "its batches took more than its weights"
    for _ in range(3):
        again, _ = loaded("convolutional")
        answers(again, NETWORKS["convolutional"].rows(256))
        again.close()
    assert used_mib() - freed < 64


def test_tensorrt_is_passed_over_with_a_sentence_where_its_libraries_are_missing(loaded: Callable[..., Any]) -> None:
    servable, _ = loaded("perceptron", "tensorrt", "cuda")
    if "tensorrt" in servable.model.placement.devices:
        pytest.skip("TensorRT is installed")
    assert servable.engine.startswith("onnxruntime on cuda: "), servable.engine
    assert servable.model.placement.note.startswith("tensorrt can"), servable.model.placement.note


@pytest.mark.parametrize("name", NETWORKS)
def test_half_floats_run_on_the_device_and_stay_near(name: str, loaded: Callable[..., Any], tmp_path: Path) -> None:
    import onnx

    from penstock_tools.publish import reduced

    graph = NETWORKS[name]
    whole, _ = loaded(name)
    (tmp_path / "1").mkdir()
    half_file = reduced.fp16(onnx.load_from_string(graph.make())).SerializeToString()
    (tmp_path / "1" / "model.onnx").write_bytes(half_file)
    half, _ = load(("half", "1"), tmp_path / "1", threads=1, max_rows=64, execution=ExecutionSettings(("cuda",)))
    assert isinstance(half, OnnxServable)
    try:
        assert half.batching is not None
        assert half.batching.batching == "rows", half.batching.reason
        assert apart(answers(half, graph.rows(64)), answers(whole, graph.rows(64))) < 1e-2
    finally:
        half.close()


@pytest.mark.slow
def test_a_server_answers_from_the_device(
    folders: dict[str, Path], tmp_path: Path, start: Callable[..., Any], put_version: Callable[..., Path]
) -> None:
    for name, folder in folders.items():
        put_version(tmp_path / "models", name, "1", (folder / "model.onnx").read_bytes())
    settings = tmp_path / "penstock.toml"
    settings.write_text('[execution]\nproviders = ["cuda", "cpu"]\n')
    server = start("--model-repository", str(tmp_path / "models"), "--config", str(settings)).wait_ready()
    engines = {row["name"]: row["engine"].partition(":")[0] for row in server.models()}
    assert engines | {"trees": ""} == dict.fromkeys(NETWORKS, "onnxruntime on cuda") | {"trees": ""}
    assert engines["trees"].startswith("kernels")
    with Client(server.grpc) as client:
        for name, graph in NETWORKS.items():
            rows = graph.rows(8)
            on_cpu = OnnxModel(folders[name] / "model.onnx")
            expected = on_cpu.run(on_cpu.feeds([rows.tobytes()], [rows.shape]))[-1]
            (got,) = client.predict(name, rows).values()
            assert apart(got, expected) < TOLERANCE


def test_a_word_that_is_not_there_harms_no_other_batch(loaded: Callable[..., Any]) -> None:
    servable, _ = loaded("transformer", "cuda")
    graph: Measured = NETWORKS["transformer"]
    rows = graph.rows(4)
    expected = answers(servable, rows)
    outside = rows.copy()
    outside[1, 3] = 10_000_000
    with suppress(ModelFailedError):  # what a row that is not there is like, is onnxruntime's own affair
        answers(servable, outside)
    assert np.array_equal(answers(servable, rows), expected)
