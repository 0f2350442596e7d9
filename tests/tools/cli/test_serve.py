def test_serve_hands_its_options_on(monkeypatch, run):
    given = {}
    monkeypatch.setattr("penstock_server.cli.run", lambda **options: given.update(options))
    assert run("serve", "--model", "a", "--model", "b", "--port", "0", "--transport", "aio") == 0
    assert given.pop("models") == ("a", "b")
    assert {name: value for name, value in given.items() if value is not None} == {
        "port": 0,
        "transport": "aio",
        "only_check": False,
    }


def test_serve_checks_without_serving(monkeypatch, run):
    given = {}
    monkeypatch.setattr("penstock_server.cli.run", lambda **options: given.update(options))
    assert run("serve", "--check", "--log-level", "warning", "--log-format", "json") == 0
    assert (given["only_check"], given["log_level"], given["log_format"]) == (True, "warning", "json")


def test_serve_takes_a_number_of_workers_or_auto(monkeypatch, run):
    given = []
    monkeypatch.setattr("penstock_server.cli.run", lambda **options: given.append(options["workers"]))
    for workers in ("3", "auto", "-1"):
        assert run("serve", "--workers", workers) == 0
    assert given == [3, "auto", "-1"]
