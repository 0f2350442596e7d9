def test_a_release_from_the_command_line(registry, client, onnx_file, capsys, run):
    assert run("publish", "fraud", str(onnx_file)) == 0
    assert run("promote", "fraud", "1") == 0
    assert run("publish", "fraud", str(onnx_file), "--alias", "canary", "--weight", "5", "--registry", registry) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fraud version 1 is registered; it is served once you run: penstock promote fraud 1",
        "fraud version 1 is now champion",
        "fraud version 2 is registered and is now canary with 5% of the traffic",
    ]
    assert client.get_registered_model("fraud").aliases == {"champion": 1, "canary": 2}
