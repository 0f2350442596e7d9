"""`mlflow server` as a process of its own, with webhooks that may go to this machine."""

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from penstock_server.control.port import reserve
from penstock_server.errors import UnavailableError

START_S: Final = 180.0
"""It makes its tables, and imports for half a minute on a small machine."""
WEBHOOKS: Final = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https"}
"""What MLflow must be told before it sends webhooks to this machine."""


@contextmanager
def mlflow_server(
    folder: Path,
    database: str | None = None,
    env: Mapping[str, str] = WEBHOOKS,
    python: str | Path = sys.executable,
) -> Iterator[str]:
    """An MLflow server that answers; its address.

    Args:
        folder: for its database, its artifacts and its log.
        database: the address of its database; None for one of sqlite in `folder`.
        env: further variables.
        python: of the environment in which its MLflow is installed.

    Raises:
        UnavailableError: it does not start.
    """
    key = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
    command = [
        *(str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database or f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "mlflow-artifacts")),
    ]
    own = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key,
        # Else it goes on for a minute as if there were no webhook, if it has told of such an event before.
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = folder / "mlflow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **own, **env}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(process, address, log)
        yield address
    finally:
        # Its workers are processes of the same session.
        for stop in ("SIGTERM", "SIGKILL"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, getattr(signal, stop))
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
                break


def _wait(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UnavailableError(f"mlflow server does not answer: {log.read_text()[-500:]}")
