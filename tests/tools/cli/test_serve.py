def test_serve_hands_its_options_on(monkeypatch, run):
    given = {}
    monkeypatch.setattr("penstock_server.cli.run", lambda **options: given.update(options))
    assert run("serve", "--model", "a", "--model", "b", "--port", "0", "--transport", "aio") == 0
    assert given.pop("models") == ("a", "b")
    assert {name: value for name, value in given.items() if value is not None} == {"port": 0, "transport": "aio"}
