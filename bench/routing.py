"""`python -m bench.routing`: what it costs to share requests between versions, and to have a shadow that gets few batches.

One server has several models of the same file, which differ in the roles of their versions, and they get the same load in
turn: 8 connections with 8 calls in flight each. So what two servers differ by is in none of the numbers. CPU is that of all
processes.
"""

import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench import inference, models
from bench.in_turn import Load, best, costs_of, measured
from bench.load.plan import LoadPlan
from bench.protocols import GRPC
from bench.servers.measured import running
from bench.servers.roles import PORTS, penstock_command, publish, registry_in
from penstock import inference_pb2 as pb
from penstock.names import CHAMPION, SHADOW

_FILE: Final = "tabular"
_ALONE: Final = "alone"
_BY_KEY: Final = "alone-by-key"
MOST_US: Final = 0.5
_SELDOM: Final = 0.0001
"""In percent: of a measurement nothing, or next to nothing."""


class Shared(NamedTuple):
    """The roles of a model's versions beside its champion, and its load.

    Attributes:
        canaries: the percentages of its canaries.
        has_shadow: a shadow is there, for which next to nothing is drawn.
        has_ids: each call has an id, which is its routing key.
        most_us: what CPU per call may be more than with the champion alone, in microseconds; None for any.
    """

    canaries: tuple[float, ...] = ()
    has_shadow: bool = False
    has_ids: bool = False
    most_us: float | None = None


SETUPS: Final = {
    _ALONE: Shared(),
    "seldom-canary": Shared((_SELDOM,)),
    "canary": Shared((5,)),
    "two-canaries": Shared((5, 5)),
    "shadow": Shared(has_shadow=True),
    "canary-and-shadow": Shared((_SELDOM,), has_shadow=True, most_us=MOST_US),
    _BY_KEY: Shared(has_ids=True),
    "canary-and-shadow-by-key": Shared((_SELDOM,), has_shadow=True, has_ids=True, most_us=MOST_US),
}


def requests(model: str) -> tuple[bytes, ...]:
    """The messages of a model's load."""
    messages = GRPC.messages(_FILE, rows=1, copies=1)
    return tuple(_for(message, model, str(uuid.uuid4()) if SETUPS[model].has_ids else "") for message in messages)


def _for(message: bytes, model: str, request_id: str) -> bytes:
    request = pb.ModelInferRequest.FromString(message)
    request.model_name, request.id = model, request_id
    return bytes(request.SerializeToString())


def _publish(file: Path, registry: str) -> None:
    # Imported here, since MLflow takes seconds.
    from penstock_tools.publish.promote import promote

    for model, setup in SETUPS.items():
        publish(model, file, registry=registry, alias=CHAMPION)
        for number, percent in enumerate(setup.canaries):
            publish(model, file, registry=registry, alias=f"canary-{number}", weight=percent)
        if setup.has_shadow:
            publish(model, file, registry=registry, alias=SHADOW)
            promote(model, 2 + len(setup.canaries), SHADOW, registry=registry, sample=_SELDOM)


@contextmanager
def _loads(seconds: float) -> Iterator[dict[str, Load]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = models.write(folder / "models", {_FILE})
        registry, env = registry_in(folder)
        _publish(files[_FILE], registry)
        setting = [f"{name}={value}" for name, value in env.items()]
        command = penstock_command("serve", "--registry", registry, *PORTS, "--workers", "1")
        server = stack.enter_context(running(["env", *setting, *command]))
        yield {
            model: Load(
                server,
                LoadPlan(server.grpc, inference.METHOD, requests(model), 8, 8, duration_s=seconds, warmup_s=0.2),
            )
            for model in SETUPS
        }


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """CPU per answered call in microseconds in each round, by the names of `SETUPS`; raises as `costs_of`."""
    with _loads(seconds) as loads:
        return costs_of(loads, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per model; returns 0, 1 if a cost is above `most_us`, or 2 if nothing could be measured."""
    costs = measured("bench.routing", "Measures what routing costs per call.", 12, measure, arguments)
    if costs is None:
        return 2
    is_above = False
    for model, setup in SETUPS.items():
        without, cost = best(costs[_BY_KEY if setup.has_ids else _ALONE]), best(costs[model])
        is_above |= setup.most_us is not None and cost - without > setup.most_us
        sys.stdout.write(f"{model}: {cost:.2f} us of CPU per call ({cost - without:+.2f} us)\n")
    return int(is_above)


if __name__ == "__main__":
    sys.exit(main())
