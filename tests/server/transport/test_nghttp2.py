import ctypes
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_server.errors import UnavailableError
from penstock_server.transport import nghttp2


def of_pycurl() -> str:
    """The file in pycurl's wheel."""
    found = find_spec("pycurl")
    if found is None or found.origin is None:
        pytest.skip("pycurl is not installed")
    (path,) = (
        path for folder in Path(found.origin).parents[:2] for path in folder.glob("pycurl.libs/libnghttp2-*.so*")
    )
    return str(path)


def test_there_is_one() -> None:
    found = nghttp2.load()
    assert found.version.startswith("1.")
    assert Path(found.origin).is_file()


def test_the_variable_names_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    path = of_pycurl()
    monkeypatch.setenv(nghttp2.VARIABLE, path)
    assert nghttp2.load().origin == path
    monkeypatch.setenv(nghttp2.VARIABLE, "/nowhere.so")
    with pytest.raises(UnavailableError, match=r"libnghttp2 cannot be loaded \(/nowhere.so: .*\); apt-get install"):
        nghttp2.load()


def test_where_the_system_has_none_the_wheel_s_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    path = of_pycurl()
    monkeypatch.setattr(nghttp2, "SYSTEM", "libnowhere.so.14")
    assert nghttp2.load().origin == path


def test_one_without_the_remedy_against_rapid_resets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_old(name: str) -> Any:
        return SimpleNamespace() if name == nghttp2.SYSTEM else ctypes.CDLL(name)

    monkeypatch.setattr(nghttp2.ctypes, "CDLL", open_old)
    monkeypatch.setattr(nghttp2, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match="too old, it lacks the remedy against rapid resets"):
        nghttp2.load()
