def test_a_server_that_is_not_there_is_one_sentence(tmp_path, capsys, run):
    rows = tmp_path / "rows.json"
    rows.write_text('[{"x": 1}]')
    assert run("predict", "fraud", str(rows), "--server", "127.0.0.1:9") == 1
    assert "no server answers at 127.0.0.1:9; start one with `penstock serve`" in capsys.readouterr().err
