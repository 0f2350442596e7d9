"""The settings of the control plane: its port, limits of new versions, when a worker hangs, whether the cloud is asked."""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from penstock_server.errors import InvalidInputError
from penstock_server.transport.tls_files import TlsFiles, tls_files

Cloud = Literal["aws", "gcp", "azure"]


@dataclass(frozen=True, slots=True)
class PreemptionSettings:
    """Whether the cloud is asked if it is about to take this machine away; the server drains then, as on SIGTERM.

    Attributes:
        cloud: whose machine it is: aws, gcp or azure. None asks nobody.
        address: where the cloud's metadata are in place of its own address, such as http://127.0.0.1:8080.
        every_s: how often it is asked.
    """

    cloud: Cloud | None = None
    address: str | None = None
    every_s: float = 2.0

    def __post_init__(self) -> None:
        if self.cloud is not None and self.cloud not in get_args(Cloud):
            raise InvalidInputError(f"preemption.cloud is {self.cloud!r}, expected {', '.join(get_args(Cloud))}")
        if self.address is not None and not (self.address.startswith("http://") and urlsplit(self.address).hostname):
            raise InvalidInputError(f"preemption.address is {self.address!r}, expected http://HOST or http://HOST:PORT")
        # Written so that NaN, which TOML can say, is refused as well.
        if not 1 <= self.every_s <= 60:
            raise InvalidInputError(f"preemption.every_s is {self.every_s}, expected 1 to 60 seconds")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Identity of the HTTP port.

    Attributes:
        tls_certificate, tls_key: PEM files; both or neither.
        tls_client_ca: a PEM file; when given, callers may show a certificate that it signed. Probes need not.
    """

    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None

    def __post_init__(self) -> None:
        tls_files("http", self.tls_certificate, self.tls_key, self.tls_client_ca)

    @property
    def tls(self) -> TlsFiles | None:
        """The files of the port; None if it speaks plain text."""
        return tls_files("http", self.tls_certificate, self.tls_key, self.tls_client_ca)


LEAST_SECRET_CHARS: Final = 16
"""A shorter secret could be guessed."""


def checked_secret(secret: str, where: str) -> str:
    """The secret without the space around it; `InvalidInputError` if it is too short, which says where it stands."""
    secret = secret.strip()
    if len(secret) < LEAST_SECRET_CHARS:
        raise InvalidInputError(
            f"{where} holds a secret of {len(secret)} characters, expected {LEAST_SECRET_CHARS} or more"
        )
    return secret


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Whether MLflow's webhooks wake the poll of the registry: those that are signed with a secret.

    Attributes:
        secret_file, secret_env: the secret, in a file or an environment variable; neither takes no webhooks. It is read anew at
            each webhook.
        tolerance_s: how far a webhook's time may be from this machine's clock. MLflow sends one that failed again for up to two
            minutes, with its first time.
    """

    secret_file: Path | None = None
    secret_env: str = ""
    tolerance_s: float = 300.0

    def __post_init__(self) -> None:
        if self.secret_file is not None and self.secret_env:
            raise InvalidInputError("webhook has both secret_file and secret_env, expected one")
        # Written so that NaN is refused as well.
        if not 1 <= self.tolerance_s < inf:
            raise InvalidInputError(f"webhook.tolerance_s is {self.tolerance_s}, expected at least 1 second")

    @property
    def is_on(self) -> bool:
        """Whether webhooks are taken."""
        return self.secret_file is not None or bool(self.secret_env)

    def read_secret(self) -> str:
        """The secret as it is now.

        Raises:
            InvalidInputError: it cannot be read, or is too short; says where it was looked for.
        """
        if self.secret_file is None:
            where, secret = f"the environment variable {self.secret_env}", os.environ.get(self.secret_env, "")
        else:
            where = f"webhook.secret_file, {self.secret_file},"
            try:
                secret = self.secret_file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidInputError(f"{where} cannot be read: {error}") from error
        return checked_secret(secret, where)


@dataclass(frozen=True, slots=True)
class AirlockSettings:
    """What a new version may use while it is tried in a process of its own.

    Attributes:
        memory_mib: resident memory; a model needs about twice the size of its file.
        timeout_s: the time to load it, warm it up and run its golden requests.
        memory_budget_mib: what all versions of a worker may need together, by what each took when it was tried. A version that
            does not fit beside those that are loaded stays out; the former and the next champion are loaded at once for a
            moment. None is no bound.
        latency_factor: how many times as long as the version that answers for its model a new one may take for a batch of 1 or
            64 rows, by what each took when it was tried. None compares nothing, and nor does a server at whose start nothing
            answers yet.
        tag_refused: why a version is refused is written to its tag `penstock.refused` in the registry, until it can be served.
        spare_processes: after the first version one process waits to fetch the next one and one to try it, both imported, so
            that it answers about a second sooner. They take 20 and 50 MiB.
    """

    memory_mib: int = 4096
    timeout_s: float = 120.0
    memory_budget_mib: int | None = None
    latency_factor: float | None = None
    tag_refused: bool = True
    spare_processes: bool = True

    def __post_init__(self) -> None:
        if self.memory_mib < 256:
            raise InvalidInputError(f"airlock.memory_mib is {self.memory_mib}, expected at least 256")
        # Written so that NaN, which TOML can say, is refused as well.
        if not 1 <= self.timeout_s < inf:
            raise InvalidInputError(f"airlock.timeout_s is {self.timeout_s}, expected at least 1 second")
        if self.memory_budget_mib is not None and self.memory_budget_mib < 1:
            raise InvalidInputError(f"airlock.memory_budget_mib is {self.memory_budget_mib}, expected at least 1")
        if self.latency_factor is not None and not 1 <= self.latency_factor < inf:
            raise InvalidInputError(f"airlock.latency_factor is {self.latency_factor}, expected at least 1")


@dataclass(frozen=True, slots=True)
class ResidencySettings:
    """Whether models are loaded when they are asked for, and leave memory for others; all are loaded at once by default.

    Attributes:
        memory_budget_mib: the resident memory that each worker may have, all of its process: what `ps` and the metric
            `penstock_worker_resident_bytes` show. A container needs this times the workers, and 200 to 500 MiB for the other
            processes. None loads every model into every worker.
        pinned: the models that are loaded at the start and never leave, each by its name or a pattern such as `fraud-*`.
        wait_s: how long a call waits for its model to be loaded, unless its own deadline comes first. Then it ends UNAVAILABLE.
        waiting_calls: how many calls of a worker may wait for models.
        stay_s: how long a model stays at least after its last answer, whatever else is asked for: models that are in use do not
            leave for each other.
    """

    memory_budget_mib: int | None = None
    pinned: tuple[str, ...] = ()
    wait_s: float = 30.0
    waiting_calls: int = 1000
    stay_s: float = 5.0

    def __post_init__(self) -> None:
        if self.memory_budget_mib is not None and self.memory_budget_mib < 1:
            raise InvalidInputError(f"residency.memory_budget_mib is {self.memory_budget_mib}, expected at least 1")
        # Written so that NaN, which TOML can say, is refused as well.
        if not 0 < self.wait_s < inf:
            raise InvalidInputError(f"residency.wait_s is {self.wait_s}, expected more than 0 seconds")
        if self.waiting_calls < 0:
            raise InvalidInputError(f"residency.waiting_calls is {self.waiting_calls}, expected 0 or more")
        if not 0 <= self.stay_s < inf:
            raise InvalidInputError(f"residency.stay_s is {self.stay_s}, expected 0 seconds or more")

    @property
    def is_on(self) -> bool:
        """Whether models come and go."""
        return self.memory_budget_mib is not None

    def is_pinned(self, model: str) -> bool:
        """Whether a model never leaves."""
        return any(fnmatchcase(model, pattern) for pattern in self.pinned)


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    """When the supervisor replaces a worker that hangs.

    Attributes:
        silent_s: its loop has shown no sign of life for this long.
        run_s: a batch on a model's own thread has run for this long.
        load_s: it has been loading one version for this long.
        start_s: it has not shown its first sign of life for this long.
    """

    silent_s: float = 10.0
    run_s: float = 60.0
    load_s: float = 240.0
    start_s: float = 120.0
