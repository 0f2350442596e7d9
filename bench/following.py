"""`python -m bench.following`: how long after an alias is written in MLflow the new version answers.

A real `mlflow server`, and one server after the other that follows it: the first polls it each second, the second hardly ever,
and is woken by webhooks. Versions are promoted that the server has never seen, and then the same ones again, whose files it has
and which it has tried. The time is from the return of the call that writes the alias to the first answer of the version.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc

from bench import inference, models
from bench.servers.measured import running
from bench.servers.mlflow_server import mlflow_server
from bench.servers.roles import PORTS, penstock_command, publish, registry_in
from penstock.names import CHAMPION
from penstock_tools.publish import webhooks

MODEL: Final = "tabular"
SECRET: Final = "a secret of the bench"
_ASK_S: Final = 0.01
_WITHIN_S: Final = 60.0
SETTINGS: Final = {
    "poll": "poll_interval_s = 1\n",
    "webhook": 'poll_interval_s = 1000\n[webhook]\nsecret_env = "PENSTOCK_BENCH_SECRET"\n',
}


def measure(versions: int, rounds: int) -> dict[str, list[float]]:
    """Seconds from alias to answer, by how the server learns of it and whether it knows the version.

    Raises:
        UnavailableError: a server does not start.
        TimeoutError: a version did not come to answer.
    """
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        registry = stack.enter_context(mlflow_server(folder))
        for seed in range(versions + 1):
            file = folder / f"{seed}.onnx"
            file.write_bytes(models.tabular(seed))
            publish(MODEL, file, registry=registry, alias=CHAMPION)
        promote = _promoting(registry)
        numbers = [str(number) for number in range(2, versions + 2)]
        for how, settings in SETTINGS.items():
            promote("1")
            # Of its own, so that no version is known to the second server.
            own = folder / how
            own.mkdir()
            _, env = registry_in(own)
            config = own / "penstock.toml"
            config.write_text(settings)
            command = penstock_command("serve", "--registry", registry, "--config", str(config), *PORTS)
            with running(command, env={**env, "PENSTOCK_BENCH_SECRET": SECRET}) as server:
                if how == "webhook":
                    address = webhooks.address_of(f"http://{server.http}")
                    made, _ = webhooks.add(registry, address, SECRET)
                    webhooks.try_out(registry, made)
                with inference.channel(server.grpc) as channel:
                    answers = _answering(channel)
                    found[f"{how}, new"] = [_seen_s(promote, answers, number) for number in numbers]
                    found[f"{how}, known"] = [
                        _seen_s(promote, answers, number) for _ in range(rounds) for number in ["1", *numbers]
                    ]
    return found


def _promoting(registry: str) -> Callable[[str], None]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=registry, registry_uri=registry)
    return lambda version: client.set_registered_model_alias(MODEL, CHAMPION, version)


def _answering(channel: Any) -> Callable[[], str]:
    message = inference.messages(MODEL, rows=1)[0]
    call = inference.infer(channel)

    def answering() -> str:
        try:
            return str(call(message, timeout=10).model_version)
        except grpc.RpcError:
            return ""

    return answering


def _seen_s(promote: Callable[[str], None], answering: Callable[[], str], version: str) -> float:
    time.sleep(0.7)  # not in step with the polls
    promote(version)
    written_s = time.monotonic()
    while answering() != version:
        if time.monotonic() - written_s > _WITHIN_S:
            raise TimeoutError(f"version {version} does not answer within {_WITHIN_S:.0f} s")
        time.sleep(_ASK_S)
    return time.monotonic() - written_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line per way and kind of version."""
    parser = argparse.ArgumentParser(prog="bench.following", description="Measures how fast aliases are followed.")
    parser.add_argument("--versions", type=int, default=8, help="versions that are promoted")
    parser.add_argument("--rounds", type=int, default=2, help="promotions of each once it is known")
    options = parser.parse_args(arguments)
    for what, seen_s in measure(options.versions, options.rounds).items():
        ordered = sorted(seen_s)
        sys.stdout.write(
            f"{what}: median {median(ordered):.3f} s, longest {ordered[-1]:.3f} s, of {len(ordered)} promotions\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
