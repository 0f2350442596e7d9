from types import SimpleNamespace
from typing import Any

import pytest

from penstock_server.response_cache.settings import Caching
from penstock_server.response_cache.verdict import caching_verdict

RANDOM = "its graph draws random numbers (Multinomial)"


def servable(declared: bool | None, varies: str = "", *, has_config: bool = True) -> Any:
    config = SimpleNamespace(caches_responses=declared) if has_config else None
    return SimpleNamespace(key=("m", "1"), artifact=SimpleNamespace(config=config), varies=varies)


@pytest.mark.parametrize(
    ("version", "caching", "is_on", "note"),
    [
        (servable(None, has_config=False), Caching(), False, ""),
        (servable(None, has_config=False), Caching(True), False, ""),
        (servable(None, has_config=False), Caching(True, True), True, ""),
        (servable(None, has_config=False), Caching(True, default=True), True, ""),
        (servable(None), Caching(True), False, ""),
        (servable(True), Caching(True), True, ""),
        (servable(False), Caching(True, default=True), False, ""),
        (servable(False), Caching(), False, ""),
        (servable(True), Caching(), False, "no effect with response_cache: the setting response_cache.max_mib has no"),
        (servable(True), Caching(True, False), False, "settings have response_cache.models.m.enable = false"),
        (servable(True, RANDOM), Caching(True), False, f"its answers are not kept in the response cache: {RANDOM}"),
        (servable(None, RANDOM), Caching(True, True), False, RANDOM),
        (servable(None, RANDOM), Caching(True), False, ""),
    ],
)
def test_answers_are_kept_where_they_are_wanted_and_alike_each_time(
    version: Any, caching: Caching, is_on: bool, note: str
) -> None:
    verdict = caching_verdict(version, caching)
    assert verdict.is_on == is_on
    assert note in verdict.note
    assert bool(note) == bool(verdict.note)
