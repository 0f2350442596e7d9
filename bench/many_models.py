"""`python -m bench.many_models`: a server that has more models than fit in memory, beside one that has only the ones in use.

A share of the models is asked all the time. The one server has these alone, and all of them in memory; the other one has every
model registered, and a budget for twice those in use. Both get the same requests in turns. Then, beside them, the other models
are asked once each, and loaded for it. The processes' memory is read all the while.

With `--registered N` it also starts a server with N models, and says how long that takes and what it costs.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final
from urllib.request import urlopen

import grpc
import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from bench import inference
from bench.load.plan import LoadPlan, LoadResult
from bench.load.process import LoadProcess
from bench.servers.measured import running
from bench.servers.roles import PORTS, penstock_command, registry_in
from penstock import inference_pb2 as pb
from penstock_server import memory
from penstock_server.airlock import attempt
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.verdict import Trial, TrialLimits
from penstock_server.models.artifact import read
from penstock_server.settings import ServerSettings
from penstock_server.sources.directory_source import DirectorySource
from penstock_tools.server_process import ServerProcess

WIDTH: Final = 512
COLUMNS: Final = 30
_MEBIBYTE: Final = 1 << 20
_LOOK_S: Final = 0.1
_READY_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        budget_bytes: of the server with all models.
        most_bytes: the most that its worker's process took.
        alone, beside: the loads of the models in use, of the server with these alone and of the one with all, in turns.
        starting: the load of the latter while other models were loaded.
        cold_s: for each of these, from its first call to the answer.
        failed: calls without an answer.
    """

    budget_bytes: int
    most_bytes: int
    alone: Sequence[LoadResult]
    beside: Sequence[LoadResult]
    starting: LoadResult
    cold_s: Sequence[float]
    failed: int


@dataclass(frozen=True, slots=True)
class Start:
    """What a start with many models costs.

    Attributes:
        ready_s: until the server is ready.
        proven_s: until it has read all models, which were proven before.
        cpu_s: what its supervisor has used of the processor by then.
        idle: what share of a core it uses from then on, while it polls and nobody asks.
    """

    models: int
    ready_s: float
    proven_s: float
    cpu_s: float
    idle: float


def model(seed: int, width: int = WIDTH) -> bytes:
    """A perceptron of two layers: rows of 30 in, two numbers out."""
    rng = np.random.default_rng(seed)
    sizes = (COLUMNS, width, width, 2)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 16, f"w{at}")
        for at, shape in enumerate(pairwise(sizes))
    ]
    nodes = [
        helper.make_node("MatMul", ["X", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w2"], ["Y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", columns])
        for name, columns in (("X", 30), ("Y", 2))
    ]
    graph = helper.make_graph(nodes, "perceptron", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def write(folder: Path, names: Sequence[str], width: int = WIDTH) -> None:
    """A model repository with these models, each with other weights."""
    for seed, name in enumerate(names):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.onnx").write_bytes(model(seed, width))


def prove(folder: Path, cache: Path) -> None:
    """Remembers what the airlock found of one model for all of them, which differ only in their weights.

    A server starts its second time as if it had tried each.
    """
    settings = ServerSettings()
    limits = TrialLimits(settings.airlock.memory_mib, settings.airlock.timeout_s)
    proven, verdict = ProvenVersions(limits, cache), None
    for name, identities in DirectorySource(folder).poll().identities.items():
        artifact = read(folder / name / "1")
        how = msgspec.structs.replace(settings.load_settings(name), threads=artifact.threads)
        trial = Trial(name, "1", identities["1"], str(artifact.path), how)
        verdict = verdict or attempt(trial, limits)
        proven.remember(trial, verdict)


def message(name: str) -> bytes:
    """A request of one row."""
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name="X", datatype="FP32", shape=[1, COLUMNS])
    request.raw_input_contents.append(np.ones((1, COLUMNS), np.float32).tobytes())
    encoded: bytes = request.SerializeToString()
    return encoded


def sample(address: str, name: str) -> float:
    """A metric of the server, summed over its labels."""
    with urlopen(f"http://{address}/metrics", timeout=60) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    return sum(each.value for family in families for each in family.samples if each.name == name)


def wait_proven(address: str, count: int) -> None:
    """Waits until so many models can be answered.

    Raises:
        TimeoutError: that takes too long.
    """
    until_s = time.monotonic() + _READY_S
    while True:
        with urlopen(f"http://{address}/v1/models", timeout=60) as reply:
            models = msgspec.json.decode(reply.read())["models"]
        if sum(one["state"] in {"READY", "STANDBY"} for one in models) >= count:
            return
        if time.monotonic() > until_s:
            raise TimeoutError(f"not all of {count} models can be answered after {_READY_S:g} s")
        time.sleep(0.5)


def serve(folder: Path, budget_mib: int | None, scratch: Path) -> list[str]:
    """The command of a server of these models."""
    config = scratch / f"{folder.name}-{budget_mib}.toml"
    config.write_text("" if budget_mib is None else f"[residency]\nmemory_budget_mib = {budget_mib}\n")
    return penstock_command("serve", "--model-repository", str(folder), "--config", str(config), *PORTS)


def ask(address: str, names: Sequence[str]) -> tuple[list[float], int]:
    """Asks each model once: the seconds of those that answered, and how many did not."""
    took_s, failed = [], 0
    with inference.channel(address) as opened:
        infer = inference.infer(opened)
        for name in names:
            started_s = time.perf_counter()
            try:
                infer(message(name), timeout=60)
            except grpc.RpcError:
                failed += 1
            else:
                took_s.append(time.perf_counter() - started_s)
    return took_s, failed


@contextmanager
def most_resident(address: str, found: list[int]) -> Iterator[None]:
    """Reads the worker's memory within the block, and adds the most of it to a list."""
    with urlopen(f"http://{address}/v1/models", timeout=60) as reply:
        (worker,) = msgspec.json.decode(reply.read())["workers"]
    done, most = threading.Event(), 0

    def look() -> None:
        nonlocal most
        while not done.wait(_LOOK_S):
            most = max(most, memory.resident_bytes(worker["pid"]))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        found.append(most)


def run(scratch: Path, *, count: int, used: int, rate_per_s: float, turn_s: float, turns: int) -> Found:
    """Measures both servers in turns.

    Args:
        scratch: an empty folder.
        count: how many models are registered.
        used: how many are in use; the budget is for twice as many.
        rate_per_s: requests a second to these together.
        turn_s: how long a load takes.
        turns: how many each server gets.

    Raises:
        UnavailableError, TimeoutError, LoadError: it could not be measured.
    """
    names = [f"model-{number}" for number in range(count)]
    hot, rest = names[:used], names[used:]
    every, few = scratch / "every", scratch / "few"
    write(every, names)
    write(few, hot)
    _, env = registry_in(scratch)
    for folder in (every, few):
        prove(folder, scratch / "cache")
    with running(serve(every, 1 << 20, scratch), env=env) as server:
        wait_proven(server.http, count)
        ask(server.grpc, names[: 2 * used])
        budget_mib = int(sample(server.http, "penstock_worker_resident_bytes") / _MEBIBYTE) + 1
    sent, most_bytes, failed = tuple(map(message, hot)), list[int](), 0
    with ExitStack() as stack:
        beside = stack.enter_context(running(serve(every, budget_mib, scratch), env=env))
        alone = stack.enter_context(running(serve(few, None, scratch), env=env))
        wait_proven(beside.http, count)
        # As in a server that has run for long: what is in memory has been loaded for others.
        failed += ask(beside.grpc, rest[: 2 * used])[1]
        time.sleep(ServerSettings().residency.stay_s + 1)
        for server in (beside, alone):
            failed += ask(server.grpc, hot)[1]
        load = stack.enter_context(LoadProcess())
        loads: dict[str, list[LoadResult]] = {beside.grpc: [], alone.grpc: []}
        for number in range(turns):
            for server in (beside, alone) if number % 2 else (alone, beside):
                load.start(_plan(server, sent, rate_per_s, turn_s, number))
                loads[server.grpc].append(load.result())
        with most_resident(beside.http, most_bytes):
            load.start(_plan(beside, sent, rate_per_s, 600.0, turns))
            cold_s, missed = ask(beside.grpc, rest)
            load.stop()
            starting = load.result()
    return Found(
        budget_mib * _MEBIBYTE, most_bytes[0], loads[alone.grpc], loads[beside.grpc], starting, cold_s, failed + missed
    )


def _plan(server: ServerProcess, sent: tuple[bytes, ...], rate_per_s: float, duration_s: float, seed: int) -> LoadPlan:
    return LoadPlan(
        server.grpc,
        inference.METHOD,
        sent,
        connections=4,
        streams=64,
        duration_s=duration_s,
        warmup_s=1.0,
        rate_per_s=rate_per_s,
        seed=seed,
    )


def start(scratch: Path, count: int, *, idle_s: float) -> Start:
    """Starts a server with so many small models, which were proven before.

    Raises:
        UnavailableError, TimeoutError: it could not be measured.
    """
    folder = scratch / "registered"
    write(folder, [f"model-{number}" for number in range(count)], width=16)
    _, env = registry_in(scratch)
    prove(folder, scratch / "cache")
    started_s = time.perf_counter()
    with running(serve(folder, 1 << 20, scratch), env=env) as server:
        ready_s = time.perf_counter() - started_s
        wait_proven(server.http, count)
        proven_s, used_s = time.perf_counter() - started_s, cpu_s(server.pid)
        time.sleep(2.0)
        before_s, at_s = cpu_s(server.pid), time.perf_counter()
        time.sleep(idle_s)
        idle = (cpu_s(server.pid) - before_s) / (time.perf_counter() - at_s)
    return Start(count, ready_s, proven_s, used_s, idle)


def table(found: Found) -> str:
    """The numbers as lines of text."""

    def quantile(loads: Sequence[LoadResult], share: float) -> float:
        return median(float(np.quantile(load.latencies_s, share)) for load in loads) * 1e3

    budget, most = found.budget_bytes / _MEBIBYTE, found.most_bytes / _MEBIBYTE
    lines = [f"resident memory of the worker: at most {most:.0f} MiB of a budget of {budget:.0f} MiB"]
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        alone, beside = quantile(found.alone, share), quantile(found.beside, share)
        starting = quantile([found.starting], share)
        lines.append(
            f"models in use, {name}: {alone:.2f} ms alone, {beside:.2f} ms with all registered ({beside / alone:.2f} x), "
            f"{starting:.2f} ms while others are loaded ({starting / alone:.2f} x)"
        )
    slowest = float(np.quantile(found.cold_s, 0.99)) if found.cold_s else float("nan")
    lines.append(
        f"{len(found.cold_s)} cold starts: median {median(found.cold_s or [float('nan')]):.2f} s, p99 {slowest:.2f} s"
    )
    loads = [*found.alone, *found.beside, found.starting]
    failures = sum((Counter(load.failures) for load in loads), Counter[str]())
    lines.append(f"failed: {found.failed + failures.total()}{''.join(f', {why} {n}' for why, n in failures.items())}")
    return "\n".join(lines) + "\n"


def cpu_s(pid: int) -> float:
    """What a process has used of the processor, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_table(found: Start) -> str:
    """The same of a start."""
    return (
        f"{found.models:,} models: ready after {found.ready_s:.1f} s, all read after {found.proven_s:.1f} s, "
        f"{found.cpu_s:.1f} s of the supervisor's processor by then, {found.idle:.1%} of a core afterwards\n"
    )


def main(
    arguments: Sequence[str] | None = None,
    *,
    measure: Callable[..., Found] = run,
    measure_start: Callable[..., Start] = start,
) -> int:
    """Prints what was found; 1 if a call failed."""
    parser = argparse.ArgumentParser(prog="bench.many_models", description="Measures a server of more models than fit.")
    parser.add_argument("--count", type=int, default=200, help="models registered (%(default)s)")
    parser.add_argument("--used", type=int, default=20, help="of these in use (%(default)s)")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second to these (%(default)s)")
    parser.add_argument("--turn", type=float, default=10.0, help="seconds of a load (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="loads of each server (%(default)s)")
    parser.add_argument("--registered", type=int, default=0, help="also start a server with so many models")
    options = parser.parse_args(arguments)
    if options.count < 4 * options.used:
        parser.error(f"--count is {options.count}; expected at least four times --used, {4 * options.used}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        found = measure(
            Path(folder),
            count=options.count,
            used=options.used,
            rate_per_s=options.rate,
            turn_s=options.turn,
            turns=options.turns,
        )
        sys.stdout.write(table(found))
        failed = found.failed + sum(load.failed for load in [*found.alone, *found.beside, found.starting])
    if options.registered:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            sys.stdout.write(start_table(measure_start(Path(folder), options.registered, idle_s=10.0)))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
