"""The settings of versions that run Python: whether they may, and what each of their processes may use."""

from dataclasses import dataclass
from math import inf

from penstock_server.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class PythonSettings:
    """How versions that run Python are served.

    Attributes:
        allow: whether they are. A pickle runs any code that it holds: whoever may register versions can then run code in
            a sandboxed process of this server.
        memory_mib: what a process may take on top of what its libraries have mapped.
        run_limit_s: a process that has not answered a batch after this long is ended, and started again.
        start_limit_s: the time to import the libraries and load the pipeline.
        threads: of the numeric libraries in each process. More processes, not more threads, use more cores.
        any_version: serve a pipeline with other releases of its libraries than it was published with.
    """

    allow: bool = False
    memory_mib: int = 2048
    run_limit_s: float = 10.0
    start_limit_s: float = 60.0
    threads: int = 1
    any_version: bool = False

    def __post_init__(self) -> None:
        if self.memory_mib < 64:
            raise InvalidInputError(f"python.memory_mib is {self.memory_mib}, expected at least 64")
        # Written so that NaN, which TOML can say, is refused as well.
        for name, limit_s in (("run_limit_s", self.run_limit_s), ("start_limit_s", self.start_limit_s)):
            if not 0.1 <= limit_s < inf:
                raise InvalidInputError(f"python.{name} is {limit_s}, expected at least 0.1 seconds")
        if self.threads < 1:
            raise InvalidInputError(f"python.threads is {self.threads}, expected at least 1")
