from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server import paths
from penstock_server.errors import InvalidInputError


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PENSTOCK_CACHE_DIR", "PENSTOCK_DATA_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")


@pytest.mark.parametrize(
    ("settings", "cache", "data"),
    [
        ({}, "/home/somebody/.cache/penstock", "/home/somebody/.local/share/penstock"),
        ({"XDG_CACHE_HOME": "/xc", "XDG_DATA_HOME": "/xd"}, "/xc/penstock", "/xd/penstock"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/somebody/.cache/penstock", "/home/somebody/.local/share/penstock"),
        ({"PENSTOCK_CACHE_DIR": "/c", "XDG_CACHE_HOME": "/xc"}, "/c", "/home/somebody/.local/share/penstock"),
        ({"PENSTOCK_DATA_DIR": "~/d"}, "/home/somebody/.cache/penstock", "/home/somebody/d"),
        ({"PENSTOCK_CACHE_DIR": ""}, "/home/somebody/.cache/penstock", "/home/somebody/.local/share/penstock"),
    ],
)
def test_our_own_setting_goes_before_the_platforms(
    settings: dict[str, str], cache: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert (paths.cache_dir(), paths.data_dir()) == (Path(cache), Path(data))


def test_a_relative_setting_is_taken_from_where_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", "here")
    assert paths.cache_dir() == tmp_path / "here"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InvalidInputError, match="set PENSTOCK_DATA_DIR"):
        paths.data_dir()


@given(st.text(st.characters(), max_size=300))
def test_any_text_becomes_a_plain_file_name(text: str) -> None:
    name = paths.file_name_for(text)
    assert name.isascii()
    assert name.replace("-", "").replace("_", "").isalnum()
    assert len(name) <= 57


@given(st.sets(st.text(alphabet="aA./\\ %_é", max_size=5), min_size=2))
def test_different_texts_have_different_names_whatever_their_case(texts: set[str]) -> None:
    assert len({paths.file_name_for(text).casefold() for text in texts}) == len(texts)
