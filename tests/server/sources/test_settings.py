from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.sources.settings import CacheSettings, FetchSettings


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (FetchSettings, {"max_mib": 0}, "fetch.max_mib is 0, expected more than 0"),
        (FetchSettings, {"max_mib": float("nan")}, "fetch.max_mib is nan"),
        (FetchSettings, {"max_mib": float("inf")}, "fetch.max_mib is inf"),
        (FetchSettings, {"max_files": 0}, "fetch.max_files is 0, expected at least 1"),
        (FetchSettings, {"timeout_s": 0}, "fetch.timeout_s is 0, expected more than 0 seconds"),
        (FetchSettings, {"timeout_s": float("nan")}, "fetch.timeout_s is nan"),
        (CacheSettings, {"max_mib": -1}, "cache.max_mib is -1, expected 0 or more"),
        (CacheSettings, {"keep": -1}, "cache.keep is -1, expected 0 or more"),
    ],
)
def test_what_is_out_of_range_is_named(kind: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        kind(**given)


def test_sizes_are_in_mebibytes() -> None:
    assert FetchSettings(max_mib=1.5).max_bytes == 3 * 2**19
    assert CacheSettings(max_mib=0, keep=0).max_bytes == 0
