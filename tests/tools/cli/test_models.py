import json

STATUS = {
    "models": [{"name": "fraud", "version": "3", "role": "champion", "weight": None, "state": "READY", "reason": ""}],
    "sources": [],
}


def test_what_a_server_has_loaded_as_a_table_and_as_json(serving, capsys, run):
    serving.body = json.dumps(STATUS).encode()
    assert run("models", "--http", serving.url) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "fraud" in line]
    assert row.split() == ["fraud", "3", "champion", "READY"]
    assert run("models", "--http", serving.url, "--json") == 0
    assert json.loads(capsys.readouterr().out) == STATUS
