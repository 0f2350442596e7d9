"""How requests are logged: the table `[request_log]` of the settings file."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from penstock_server.errors import InvalidInputError
from penstock_server.request_log.files import SPOOL


@dataclass(frozen=True, slots=True)
class RequestLogSettings:
    """Which answered requests are kept as Parquet files: their raw columns and their outputs.

    Attributes:
        directory: where; None logs nothing. Servers on machines that share file locks may share it, and max_bytes too.
        sample_ratio: the share of requests that are kept, each with all its rows.
        max_bytes: the most bytes that all files may take together; the oldest are deleted first.
        rotate_bytes, rotate_s: a file is closed, and can be read, at this size or this age.
    """

    directory: Path | None = None
    sample_ratio: float = 0.01
    max_bytes: int = 1024**3
    rotate_bytes: int = 32 * 1024**2
    rotate_s: float = 300.0

    def __post_init__(self) -> None:
        # Written so that NaN is refused as well.
        if not 0 < self.sample_ratio <= 1:
            raise InvalidInputError(
                f"request_log.sample_ratio is {self.sample_ratio}, expected a share above 0 and at most 1"
            )
        if not 0 < self.rotate_s < inf:
            raise InvalidInputError(f"request_log.rotate_s is {self.rotate_s}, expected more than 0 seconds")
        if not 4096 <= self.rotate_bytes <= self.max_bytes // 4:
            raise InvalidInputError(
                f"request_log.rotate_bytes is {self.rotate_bytes}, expected from 4096 to a quarter of max_bytes, which is "
                f"{self.max_bytes}"
            )

    @property
    def spool(self) -> Path | None:
        """Where workers write segments, which become Parquet later; None if nothing is logged."""
        return None if self.directory is None else self.directory.absolute() / SPOOL

    @property
    def spool_bytes(self) -> int:
        """The most bytes that the segments of all workers may take, which leaves room for the Parquet files."""
        return self.max_bytes // 2
