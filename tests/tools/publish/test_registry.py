import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_tools.publish.registry import _artifacts_of, experiment_id, opened


def test_artifacts_are_next_to_the_database(client, tmp_path):
    found = client.get_experiment(experiment_id(client))
    assert found.artifact_location == (tmp_path / "artifacts").as_uri()


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
