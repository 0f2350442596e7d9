"""The settings of the control plane: what a version may use before it has proven itself, and when a worker counts as hung."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from penstock_server.errors import InvalidInputError
from penstock_server.transport.tls_files import TlsFiles, tls_files


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


@dataclass(frozen=True, slots=True)
class AirlockSettings:
    """What a new version may use while it is tried in a process of its own.

    Attributes:
        memory_mib: resident memory; a model needs about twice the size of its file.
        timeout_s: the time to load it, warm it up and run its golden requests.
    """

    memory_mib: int = 4096
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if self.memory_mib < 256:
            raise InvalidInputError(f"airlock.memory_mib is {self.memory_mib}, expected at least 256")
        # Written so that NaN, which TOML can say, is refused as well.
        if not 1 <= self.timeout_s < inf:
            raise InvalidInputError(f"airlock.timeout_s is {self.timeout_s}, expected at least 1 second")


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
