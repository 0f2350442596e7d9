import socket

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.sources.registry import sqlite_path
from penstock_tools.publish import registry as registry_module
from penstock_tools.publish.registry import _artifacts_of, check_answers, experiment_id, opened


def test_artifacts_are_next_to_the_database(client, database):
    found = client.get_experiment(experiment_id(client))
    assert found.artifact_location == (database.parent / "artifacts").as_uri()


def test_the_experiment_is_made_once(client):
    assert experiment_id(client) == experiment_id(client)


def test_a_database_on_a_server_does_not_write_to_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    assert _artifacts_of("postgresql://db/mlflow") == (tmp_path / "artifacts").as_uri()
    assert _artifacts_of("http://mlflow:5000") is None


def test_a_registry_that_does_not_answer_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9 does not answer") as caught,
        opened("http://me:secret@127.0.0.1:9") as client,
    ):
        client.get_registered_model("fraud")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_registry_that_is_away_is_told_at_once(monkeypatch, scheme):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    expected = rf"^the registry {scheme}://127\.0\.0\.1:9 does not answer \(Connection refused\); check its address"
    with pytest.raises(UnavailableError, match=expected), opened(f"{scheme}://127.0.0.1:9"):
        pass


def test_a_registry_that_hangs_is_told_soon(monkeypatch):
    monkeypatch.setattr(registry_module, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=r"does not answer \(nothing came within 0.2 s\)"), opened(uri):
            pass


def test_any_answer_is_a_sign_of_life(serving):
    serving.status = 404
    check_answers(serving.url)
    assert serving.asked == ["/health"]


@pytest.mark.parametrize(
    "uri", ["sqlite:////nowhere.db", "http://[", "http://h:port", "databricks", "./mlruns", "http://"]
)
def test_other_addresses_are_left_to_mlflow(uri):
    check_answers(uri)


def test_an_address_that_mlflow_does_not_know_is_a_sentence():
    with (
        pytest.raises((InvalidInputError, UnavailableError), match="carrier-pigeon"),
        opened("carrier-pigeon://a") as client,
    ):
        client.get_registered_model("fraud")


def test_what_mlflow_does_not_find_is_not_found(registry):
    with pytest.raises(NotFoundError, match="fraud"), opened(registry) as client:
        client.get_registered_model("fraud")


def test_other_errors_pass(registry):
    with pytest.raises(ZeroDivisionError), opened(registry):
        _ = 1 / 0


class HalfMade:
    """Makes tables as MLflow does, until somebody interrupts it."""

    def __init__(self, uri):
        self.path = sqlite_path(uri)

    def search_experiments(self, max_results):
        self.path.write_bytes(b"half of the tables")
        raise KeyboardInterrupt


class Whole(HalfMade):
    def search_experiments(self, max_results):
        self.path.write_bytes(b"all tables")


@pytest.mark.parametrize("before", [None, b""])
def test_an_interrupted_first_command_leaves_no_half_made_registry(monkeypatch, tmp_path, before):
    path = tmp_path / "registry.db"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(registry_module, "connect", HalfMade)
    with pytest.raises(KeyboardInterrupt):
        registry_module._make_tables(f"sqlite:///{path}")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == (
        [] if before is None else [("registry.db", b"")]
    )
    monkeypatch.setattr(registry_module, "connect", Whole)
    registry_module._make_tables(f"sqlite:///{path}")
    assert path.read_bytes() == b"all tables"
    assert [file.name for file in tmp_path.iterdir()] == ["registry.db"]


def test_of_two_first_commands_the_first_makes_the_registry(monkeypatch, tmp_path):
    path = tmp_path / "registry.db"

    class Late(Whole):
        def search_experiments(self, max_results):
            super().search_experiments(max_results)
            path.write_bytes(b"the other's tables and a version")

    monkeypatch.setattr(registry_module, "connect", Late)
    monkeypatch.setattr(registry_module.Path, "exists", lambda _: False)
    registry_module._make_tables(f"sqlite:///{path}")
    assert path.read_bytes() == b"the other's tables and a version"
