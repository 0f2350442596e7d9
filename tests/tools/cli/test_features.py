from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import spec


def test_a_specification_is_shown(files, run, capsys):
    assert run("features", files / "before.yaml") == 0
    shown = capsys.readouterr().out
    assert "2 columns in" in shown
    assert "city=Oslo" in shown
    assert "mean" not in shown


def test_a_specification_is_run_on_a_sample(files, before_onnx, small_frame, run, capsys):
    assert run("features", files / "before.yaml", "--sample", files / "s.csv") == 0
    first = Pipeline(before_onnx).transform({"age": small_frame["age"].to_numpy()[:1], "city": ["Oslo"]})[0, 0]
    shown = capsys.readouterr().out
    assert f"{first:.6g}" in shown
    assert "mean" in shown


def test_what_a_pipeline_becomes_is_shown(files, run, capsys):
    assert run("features", files / "p.skops", "--sample", files / "s.csv") == 0
    shown = capsys.readouterr().out
    assert "city=Rome" in shown
    assert "LogisticRegression" in shown


def test_the_yaml_of_a_pipeline_is_a_specification(files, run, capsys):
    assert run("features", files / "p.skops", "--sample", files / "s.csv", "--precision", "FP64", "--yaml") == 0
    found = spec.decode_yaml(capsys.readouterr().out.encode())
    assert (found.width, found.datatype) == (3, "FP64")
