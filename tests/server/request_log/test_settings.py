from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.request_log.settings import RequestLogSettings


def test_segments_leave_half_of_the_room_to_parquet() -> None:
    settings = RequestLogSettings(Path("requests"), max_bytes=400_000, rotate_bytes=4096)
    assert (settings.spool, settings.spool_bytes) == (Path("requests").absolute() / ".spool", 200_000)
    assert RequestLogSettings().spool is None


@pytest.mark.parametrize(
    "change",
    [
        {"sample_ratio": 0.0}, {"sample_ratio": 1.01}, {"sample_ratio": nan}, {"rotate_s": 0.0}, {"rotate_s": inf},
        {"rotate_s": nan}, {"rotate_bytes": 4095}, {"max_bytes": 4 * 32 * 1024**2 - 1},
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=rf"request_log\.(rotate_bytes|{next(iter(change))}) is "):
        replace(RequestLogSettings(), **change)
