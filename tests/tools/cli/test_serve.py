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
