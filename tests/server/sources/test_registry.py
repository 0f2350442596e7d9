from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.sources.registry import artifact_location, default_registry, redacted, without_secrets


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_users_own_registry_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://registry:5000")
    assert default_registry() == "http://registry:5000"


def test_the_embedded_registry_is_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "new folder"))
    assert default_registry() == f"sqlite:///{tmp_path}/new folder/registry.db"
    assert (tmp_path / "new folder").is_dir()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(UnavailableError, match="cannot be created: Not a directory"):
        default_registry()


def test_a_folder_that_no_uri_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "what?"))
    with pytest.raises(InvalidInputError, match="set PENSTOCK_DATA_DIR"):
        default_registry()


@pytest.mark.parametrize(
    ("registry", "location"),
    [
        ("sqlite:////data/registry.db", "file:///data/artifacts"),
        ("sqlite:////my data/registry.db", "file:///my%20data/artifacts"),
        ("http://registry:5000", None),
        ("postgresql://db/mlflow", None),
    ],
)
def test_artifacts_are_next_to_an_embedded_registry(registry: str, location: str | None) -> None:
    assert artifact_location(registry) == location


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://user:pw@host/path", "https://host/path"),
        ("postgresql://me:p@ss@db/mlflow?password=x", "postgresql://db/mlflow"),
        ("sqlite:////a@b/registry.db", "sqlite:////a@b/registry.db"),
        ("databricks", "databricks"),
    ],
)
def test_addresses_are_shown_without_secrets(uri: str, shown: str) -> None:
    assert redacted(uri) == shown


def test_messages_lose_their_secrets() -> None:
    text = "request to http://user:pw@host/api failed (see https://docs/x@y)"
    assert without_secrets(text) == "request to http://host/api failed (see https://docs/x@y)"
