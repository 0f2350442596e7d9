from dataclasses import dataclass

import pytest

from penstock_server.metrics.selection import not_loaded, selected


@dataclass
class Version:
    model: str
    version: str
    roles: tuple[str, ...] = ()


LOADED = [Version("m", "1", ("champion",)), Version("m", "2", ("canary", "shadow")), Version("n", "1", ("champion",))]


@pytest.mark.parametrize(
    ("model", "version", "found"),
    [
        ("", "", [0, 1, 2]),
        ("m", "", [0, 1]),
        ("", "1", [0, 2]),
        ("m", "2", [1]),
        ("m", "@shadow", [1]),
        ("", "@champion", [0, 2]),
        ("n", "2", []),
        ("m", "champion", []),
        ("", "@", []),
    ],
)
def test_what_is_selected(model: str, version: str, found: list[int]) -> None:
    assert selected(LOADED, model, version) == tuple(LOADED[at] for at in found)


@pytest.mark.parametrize(
    ("model", "version", "said"),
    [
        ("m", "", "no version of model 'm' is loaded"),
        ("m", "@shadow", "no version '@shadow' of model 'm' is loaded"),
        ("", "7", "no version '7' of any model is loaded"),
    ],
)
def test_what_is_not_loaded_is_named(model: str, version: str, said: str) -> None:
    assert str(not_loaded(model, version)) == said
