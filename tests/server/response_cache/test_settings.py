from typing import Any

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.response_cache.settings import Caching, OwnResponseCacheSettings, ResponseCacheSettings

ON, OFF = OwnResponseCacheSettings(True), OwnResponseCacheSettings(False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_mib": -1}, "response_cache.max_mib is -1, expected 0 or more"),
        ({"max_mib": float("nan")}, "response_cache.max_mib is nan"),
        ({"max_mib": float("inf")}, "response_cache.max_mib is inf"),
        ({"enable": True}, r"response_cache.enable is true and response_cache.max_mib is 0, expected the memory"),
        ({"models": {"a": OFF, "b": ON}}, r"response_cache.models.b.enable is true and response_cache.max_mib is 0"),
    ],
)
def test_settings_check_themselves(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        ResponseCacheSettings(**settings)


def test_nothing_is_kept_by_default() -> None:
    assert ResponseCacheSettings().of("m") == Caching() == Caching(has_memory=False, own=None, default=False)
    assert not Caching().wants(None)
    assert ResponseCacheSettings(models={"m": OFF}).max_bytes == 0


def test_a_model_may_have_its_own_way() -> None:
    settings = ResponseCacheSettings(0.5, enable=True, models={"a": OFF})
    assert settings.max_bytes == 1 << 19
    assert settings.of("a") == Caching(True, False, True)
    assert settings.of("b") == Caching(True, None, True)


@pytest.mark.parametrize(
    ("own", "declared", "default", "wants"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, True, False, True),
        (None, False, True, False),
        (True, False, False, True),
        (False, True, True, False),
    ],
)
def test_the_settings_of_a_model_come_before_its_files_and_these_before_the_others(
    own: bool | None, declared: bool | None, default: bool, wants: bool
) -> None:
    assert Caching(True, own, default).wants(declared) == wants
