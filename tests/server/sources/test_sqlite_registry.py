import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.sources import sqlite_registry
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.sqlite_registry import SqliteRegistry


def opened(publisher: Any) -> SqliteRegistry:
    return SqliteRegistry(Path(publisher.uri.removeprefix("sqlite:///")), publisher.uri)


@pytest.mark.long
def test_it_reads_what_mlflow_reads(publisher: Any) -> None:
    """mlflow's own client is the oracle, for everything that serving needs."""
    publisher.publish("a", "champion")
    publisher.publish("a", "canary", "other")
    publisher.publish("d", "champion")
    publisher.publish("d", "canary-b")
    publisher.publish("d", "shadow-b", "shadow-c")
    publisher.client.set_model_version_tag("a", "2", "penstock.weight", "12.5")
    publisher.publish("a")
    publisher.publish("b ä%")
    publisher.publish("c", "champion")
    publisher.publish("c", "shadow")
    publisher.client.delete_model_version("c", 2)
    publisher.client.create_registered_model("empty")
    publisher.client.register_prompt("prompt", "say {{ it }}")
    ours = {model.name: model for model in opened(publisher).models()}
    theirs = {model.name: model for model in RegistryClient(publisher.uri).models()}
    assert ours.keys() == theirs.keys() == {"a", "b ä%", "c", "d", "empty"}
    for name, model in theirs.items():
        assert ours[name].aliases == model.aliases
        assert ours[name].newest == model.newest
        assert opened(publisher).model(name) == ours[name]
    assert ours["a"].versions.keys() == {"1", "2"}
    assert ours["d"].versions.keys() == {"1", "2", "3"}
    client = RegistryClient(publisher.uri)
    for name, version in (("a", "1"), ("a", "2"), ("a", "3"), ("c", "1"), ("d", "3")):
        assert opened(publisher).version(name, version) == client.version(name, version)
        assert opened(publisher).artifact_uri(name, version) == client.artifact_uri(name, version)
        if version in ours[name].versions:
            assert ours[name].versions[version] == client.version(name, version)


def test_what_is_not_there_is_not_found(publisher: Any) -> None:
    publisher.publish("a")
    publisher.publish("a")
    publisher.client.delete_model_version("a", 2)
    for name, version in (("a", "2"), ("a", "3"), ("b", "1"), ("A", "1")):
        with pytest.raises(NotFoundError, match=f"version {version} of model '{name}' is not in the registry"):
            opened(publisher).version(name, version)
    with pytest.raises(NotFoundError, match="model 'b' is not in the registry"):
        opened(publisher).model("b")
    for version in ("one", "", "-1", "1; DROP TABLE", "٣", "9" * 19):
        with pytest.raises(InvalidInputError, match="a version is a number"):
            opened(publisher).version("a", version)


def test_a_million_aliases_are_few(publisher: Any) -> None:
    publisher.publish("a", "champion")
    with closing(sqlite3.connect(publisher.uri.removeprefix("sqlite:///"))) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(registered_model_aliases)")]
        rest = {"name": "a", "version": 1, "workspace": "default"}
        names = ", ".join(columns)
        values = ", ".join("?" * len(columns))
        database.executemany(
            f"INSERT INTO registered_model_aliases ({names}) VALUES ({values})",
            ([f"alias-{n:06}" if column == "alias" else rest[column] for column in columns] for n in range(20_000)),
        )
    (model,) = opened(publisher).models()
    assert model.aliases == {"champion": "1", "alias-000000": "1"}


def test_a_registry_that_is_not_there_yet_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    assert SqliteRegistry(path, "shown").models() == []
    assert not path.exists()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (x)")
    assert SqliteRegistry(path, "shown").models() == []
    with pytest.raises(NotFoundError):
        SqliteRegistry(path, "shown").model("a")


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + bytes(200)])
def test_a_file_that_is_no_database_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="the registry shown cannot be read"):
        SqliteRegistry(path, "shown").models()


def test_tables_of_another_shape_are_told(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE registered_models (title)")
    with pytest.raises(UnavailableError, match=r"cannot be read: no such (column|table)"):
        SqliteRegistry(path, "shown").models()


def test_a_locked_database_is_given_up_in_time(publisher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_registry, "LOCKED_S", 0.05)
    with closing(sqlite3.connect(publisher.uri.removeprefix("sqlite:///"))) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="database is locked"):
            opened(publisher).models()
    assert opened(publisher).models() == []


def test_a_list_that_is_too_long_is_told(publisher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_registry, "MAX_MODELS", 1)
    publisher.publish("a")
    assert len(opened(publisher).models()) == 1
    publisher.publish("b")
    with pytest.raises(UnavailableError, match="lists more than 1 models"):
        opened(publisher).models()


def test_a_registry_that_is_being_written_is_read_in_one_state(publisher: Any) -> None:
    publisher.publish("a", "champion")
    registry = opened(publisher)
    with registry._opened() as tables:
        assert tables is not None
        before = tables.models("", ())
        with closing(sqlite3.connect(publisher.uri.removeprefix("sqlite:///"), timeout=0)) as database:
            # A writer is kept out, or its changes are not seen, until the reading ends.
            try:
                with database:
                    database.execute("DELETE FROM registered_model_aliases")
            except sqlite3.OperationalError:
                pass
        assert tables.models("", ()) == before
