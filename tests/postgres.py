"""A PostgreSQL for tests, in a folder of its own, that only a socket file leads to."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import debian


@contextmanager
def postgres_server() -> Iterator[str]:
    """Starts an empty one; gives its address as SQLAlchemy takes it. Skips the test where there is none."""
    initdb, server = debian.program("initdb", "postgresql-15"), debian.program("postgres", "postgresql-15")
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))  # where another user may look
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    if user:
        shutil.chown(folder, user)
    how: dict[str, Any] = {"env": debian.environment(server), "user": user, "cwd": folder}
    data = folder / "data"
    try:
        subprocess.run(
            [initdb, "-D", data, "-A", "trust", "-U", "penstock", "-N"], check=True, capture_output=True, **how
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"initdb does not run here: {getattr(error, 'stderr', error)!r}")
    command = [server, "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "ready to accept connections" in line:
                break
        yield f"postgresql+pg8000://penstock@/postgres?unix_sock={folder}/.s.PGSQL.5432"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        shutil.rmtree(folder)
