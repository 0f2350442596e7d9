"""`python -m bench.ensembles`: what a chain of two small models costs, against a client that calls one after the other.

The first model scales 30 columns, the second is a boosting of 100 trees. One server has both and the chain; each gets the same
load in turn, one row per call, with few and with many calls in flight. What a client's own process spends is shown beside: it
makes one call in place of two, and receives what the first model gives only to send it again.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from bench import inference, models
from bench.in_turn import READY_S, Load, NotAnsweredError, measured
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from bench.servers.measured import SERVERS, running
from penstock_client import Client
from penstock_tools.server_process import ServerProcess

CHAIN: Final = "chain"
SCALE: Final = "scale"
TREES: Final = "tabular"
IN_FLIGHT: Final = ((1, 1), (8, 8))
"""Connections, and calls in flight on each."""
CLIENT: Final = (0, 0)
"""Stands for the client's own process."""
MOST: Final = 1.0
"""What CPU per request may be, as a multiple of two calls: of the server under load, and of both with one call in flight."""
Costs = dict[tuple[str, tuple[int, int]], list[float]]
_CALLS: Final = 500
_PIPELINE: Final = """
[inputs.{input}]
datatype = "FP32"
shape = [-1, 30]
[outputs.label]
datatype = "INT64"
shape = [-1]
[outputs.probabilities]
datatype = "FP32"
shape = [-1, 2]
[[steps]]
model = "scale"
inputs = {{ {input} = "{input}" }}
outputs = {{ scaled = "scaled" }}
[[steps]]
model = "tabular"
inputs = {{ {input} = "scaled" }}
outputs = {{ label = "label", probabilities = "probabilities" }}
"""


def write(folder: Path) -> None:
    """The repository: both models, and the chain of them."""
    models.write(folder, {TREES})
    for name, file, content in (
        (SCALE, "model.onnx", scaling()),
        (CHAIN, "pipeline.toml", _PIPELINE.format(input=models.INPUT).encode()),
    ):
        path = folder / name / "1"
        path.mkdir(parents=True)
        (path / file).write_bytes(content)


def scaling() -> bytes:
    """`scaled = X * 2`, a graph that costs next to nothing."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Mul", [models.INPUT, "by"], ["scaled"])],
        "graph",
        [helper.make_tensor_value_info(models.INPUT, TensorProto.FLOAT, ["N", 30])],
        [helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["N", 30])],
        [numpy_helper.from_array(np.full(30, 2, np.float32), "by")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@contextmanager
def _served() -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        write(folder)
        with running(SERVERS["penstock"].command(folder, {})) as process:
            with Client(process.grpc) as client:
                _wait(client)
            yield process


def _wait(client: Client) -> None:
    """Waits until the chain answers, and as the two models do."""
    row, give_up_s = models.sample(TREES, rows=1), time.monotonic() + READY_S
    while not any(one.name == CHAIN and one.state == "READY" for one in client.index()):
        if time.monotonic() > give_up_s:
            raise NotAnsweredError(f"the chain is not ready: {client.index()}")
        time.sleep(0.05)
    scaled = np.asarray(client.predict(SCALE, row)["scaled"])
    one, two = client.predict(CHAIN, row), client.predict(TREES, scaled)
    if not np.array_equal(one["probabilities"], two["probabilities"]):
        raise NotAnsweredError("the chain answers otherwise than its models")


def measure(rounds: int, seconds: float) -> Costs:
    """The server's CPU per call in microseconds in each round, by model and by calls in flight; and the client's own.

    Raises:
        NotAnsweredError: a call was not answered.
        LoadError, UnavailableError: there is no load or no server.
    """
    found: Costs = {}
    row = models.sample(TREES, rows=1)
    with LoadPool() as pool, _served() as process, Client(process.grpc) as client:
        message = inference.request(TREES, row)
        plans = {}
        for name in (CHAIN, SCALE, TREES):
            message.model_name = name
            plans[name] = LoadPlan(
                process.grpc, inference.METHOD, (message.SerializeToString(),), duration_s=seconds, warmup_s=0.3
            )
        for turn in range(rounds):
            for name, plan in sorted(plans.items(), reverse=turn % 2 == 1):
                for shape in IN_FLIGHT:
                    loaded = replace(plan, connections=shape[0], streams=shape[1])
                    found.setdefault((name, shape), []).append(Load(process, loaded).cost_us(pool))
                started_s = time.process_time()
                for _ in range(_CALLS):
                    client.predict(name, row)
                found.setdefault((name, CLIENT), []).append((time.process_time() - started_s) / _CALLS * 1e6)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per number of calls in flight; returns 0, 1 above `MOST`, or 2 if nothing could be measured."""
    costs = measured("bench.ensembles", "Measures a chain of two models.", 5, measure, arguments)
    if costs is None:
        return 2
    for shape in (*IN_FLIGHT, CLIENT):
        chain, first, second = (median(costs[name, shape]) for name in (CHAIN, SCALE, TREES))
        where = f"server, {shape[0]} x {shape[1]} in flight" if shape != CLIENT else "client"
        sys.stdout.write(
            f"{where}: {chain:.1f} us of CPU for the chain, {first:.1f} + {second:.1f} for two calls: "
            f"{_ratio(costs, shape):.2f}\n"
        )
    whole = _ratio(costs, (1, 1), CLIENT)
    sys.stdout.write(f"server and client, one call in flight: {whole:.2f}\n")
    return int(whole > MOST or _ratio(costs, IN_FLIGHT[-1]) > MOST)


def _ratio(costs: Costs, *shapes: tuple[int, int]) -> float:
    """The chain's CPU over that of two calls, the median over the rounds; of several shapes together."""
    rounds = zip(*(costs[name, shape] for shape in shapes for name in (CHAIN, SCALE, TREES)), strict=True)
    return median(sum(turn[::3]) / (sum(turn[1::3]) + sum(turn[2::3])) for turn in rounds)


if __name__ == "__main__":
    sys.exit(main())
