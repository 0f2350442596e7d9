import json

import pytest


@pytest.mark.long
def test_a_release_from_the_command_line(registry, client, onnx_file, capsys, run):
    assert run("publish", "fraud", str(onnx_file)) == 0
    assert run("promote", "fraud", "1") == 0
    assert run("publish", "fraud", str(onnx_file), "--alias", "canary", "--weight", "5", "--registry", registry) == 0
    decided = "requests are batched by rows: proven on 64 made-up rows"
    assert capsys.readouterr().out.splitlines() == [
        decided,
        "fraud version 1 is registered; it is served once you run: penstock promote fraud 1",
        "fraud version 1 is now champion",
        decided,
        "fraud version 2 is registered and is now canary with 5% of the traffic",
    ]
    assert client.get_registered_model("fraud").aliases == {"champion": 1, "canary": 2}


@pytest.fixture
def fraud(registry, client):
    client.create_registered_model("fraud")
    for _ in range(2):
        client.create_model_version("fraud", "file:///nowhere")
    return client


def test_a_servers_settings_say_which_alias_is_written_and_where(fraud, registry, tmp_path, monkeypatch, capsys, run):
    config = tmp_path / "penstock.toml"
    config.write_text(f'registry = "{registry}"\n[policy]\nchampion = "production"\n')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run("promote", "fraud", "2", "--config", str(config)) == 0
    assert capsys.readouterr().out == "fraud version 2 is now champion\n"
    assert fraud.get_registered_model("fraud").aliases == {"production": 2}
    assert run("promote", "fraud", "--alias", "champion", "--remove", "--config", str(config)) == 0
    assert fraud.get_registered_model("fraud").aliases == {}


def status(role):
    row = {"name": "fraud", "version": "2", "role": role, "weight": None, "state": "READY", "reason": ""}
    return json.dumps({"models": [row], "sources": []}).encode()


def test_promote_waits_until_the_server_serves_it(fraud, serving, capsys, run):
    serving.body = status("champion")
    assert run("promote", "fraud", "2", "--wait", "--http", serving.url) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "fraud version 2 is now champion"
    assert shown[1].startswith("the server serves version 2 as champion, after ")


def test_promote_says_why_the_server_does_not_serve_it(fraud, serving, capsys, run):
    serving.body = status("shadow")
    assert run("promote", "fraud", "2", "--wait", "--timeout", "0", "--http", serving.url) == 1
    assert capsys.readouterr().err.endswith("does not serve it yet: the version is READY\n")


def test_nothing_is_promoted_when_no_server_could_serve_it(fraud, capsys, run):
    assert run("promote", "fraud", "2", "--wait", "--http", "http://127.0.0.1:9") == 1
    assert "no server answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert fraud.get_registered_model("fraud").aliases == {}


def test_a_role_is_removed(fraud, serving, capsys, run):
    serving.body = status("champion")
    assert run("promote", "fraud", "2", "--alias", "shadow") == 0
    assert run("promote", "fraud", "--alias", "shadow", "--remove", "--wait", "--http", serving.url) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "fraud version 2 is no longer shadow"
    assert shown[2].startswith("the server no longer serves version 2 as shadow, after ")
    assert fraud.get_registered_model("fraud").aliases == {}


@pytest.mark.parametrize(
    "options", [[], ["--alias", "canary"], ["2", "--remove", "--also"], ["2", "--remove", "--weight", "5"]]
)
def test_options_that_do_not_go_together(registry, options, run):
    assert run("promote", "fraud", *options) == 2
