"""Promotions under load: the registry's alias moves again and again, and no request may fail.

The next promotion begins when the previous one is visible in the version of an answer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from bench import inference, models
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan, LoadResult
from bench.load.process import LoadProcess
from bench.servers.measured import running
from bench.servers.roles import PORTS, penstock_command, publish, registry_in
from penstock.names import CHAMPION

MODEL: Final = "tabular"
_POLL_S: Final = 0.02
_VISIBLE_WITHIN_S: Final = 60.0
_MAX_REQUESTS: Final = 30_000_000


class PromotionError(Exception):
    """A promotion did not become visible."""


@dataclass(frozen=True, slots=True)
class Promotions:
    """What was found in a series of promotions under load.

    Attributes:
        visible_s: for each promotion, from the alias written to the first answer of the promoted version.
        load: of the whole series.
    """

    visible_s: tuple[float, ...]
    load: LoadResult


def promote_in_turn(
    versions: Sequence[str],
    count: int,
    *,
    promote: Callable[[str], None],
    served_version: Callable[[], str],
    every_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> list[float]:
    """Promotes the versions in turn, and returns for each promotion the seconds until it was visible.

    Args:
        versions: the first is served at the start.
        count: how many promotions.
        promote: writes the alias.
        served_version: gets the version of an answer.
        every_s: from one promotion to the next at least.
        clock: monotonic seconds.
        wait: sleeps for a number of seconds.

    Raises:
        PromotionError: a promoted version was not served within a minute.
    """
    seen_s = []
    for number in range(1, count + 1):
        version = versions[number % len(versions)]
        promote(version)
        started = clock()
        while (served := served_version()) != version:
            if clock() - started > _VISIBLE_WITHIN_S:
                raise PromotionError(
                    f"promotion {number} to version {version} is not visible, version {served} still answers"
                )
            wait(_POLL_S)
        seen_s.append(clock() - started)
        wait(max(0.0, every_s - seen_s[-1]))
    return seen_s


def run(folder: Path, count: int) -> Promotions:
    """Publishes two versions, serves them, and promotes them in turn under load.

    Args:
        folder: an empty one, for the registry and its artifacts.
        count: how many promotions.

    Raises:
        UnavailableError: publishing or serving failed.
        PromotionError: a promotion did not become visible.
        LoadError: the load ended before the promotions did.
    """
    registry, env = registry_in(folder)
    for seed in (0, 1):
        file = folder / f"{MODEL}-{seed}.onnx"
        file.write_bytes(models.tabular(seed))
        publish(MODEL, file, registry=registry, alias=CHAMPION)
    versions, promote = aliases(registry)
    serve = penstock_command("serve", "--registry", registry, "--model", MODEL, *PORTS, "--workers", "1")
    with running(serve, env=env) as server, LoadProcess() as load, prober(server.grpc) as served_version:
        promote_in_turn(versions[:1], 1, promote=promote, served_version=served_version)
        started = time.monotonic()
        load.start(_plan(server.grpc, count))
        seen_s = promote_in_turn(versions, count, promote=promote, served_version=served_version)
        lasted_s = time.monotonic() - started
        load.stop()
        result = load.result()
    if result.window_s < 0.9 * lasted_s:
        raise LoadError(f"the load ended after {result.window_s:.0f} s, the promotions took {lasted_s:.0f} s")
    return Promotions(tuple(seen_s), result)


def _plan(address: str, count: int) -> LoadPlan:
    return LoadPlan(
        address=address,
        path=inference.METHOD,
        messages=inference.messages(MODEL, rows=1),
        connections=4,
        streams=8,
        duration_s=count * _VISIBLE_WITHIN_S,
        max_requests=_MAX_REQUESTS,
    )


def aliases(uri: str) -> tuple[list[str], Callable[[str], None]]:
    """The published versions, oldest first, and a function that moves the alias to one."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = sorted((each.version for each in client.search_model_versions(f"name='{MODEL}'")), key=int)

    def promote(version: str) -> None:
        client.set_registered_model_alias(MODEL, CHAMPION, version)

    return [str(version) for version in found], promote


@contextmanager
def prober(address: str) -> Iterator[Callable[[], str]]:
    """A function that gets the version of an answer; "" while there is no answer."""
    message = inference.messages(MODEL, rows=1)[0]
    with inference.channel(address) as channel:
        call = inference.infer(channel)

        def served_version() -> str:
            try:
                return str(call(message, timeout=10).model_version)
            except grpc.RpcError:
                return ""

        yield served_version
