import pandas as pd
import pytest


@pytest.mark.long
def test_a_pipeline_is_published_and_shown(registry, client, files, run, capsys):
    sample = ("--sample", files / "s.csv", "--labels", "truth")
    assert run("publish", "fraud", files / "p.skops", *sample, "--alias", "champion") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "fraud version 1 is registered and is now champion"
    assert shown.out.splitlines()[-2] == "requests are batched by rows: proven on 16 golden rows"
    rows = {line[:22].strip(): line[22:].strip() for line in shown.out.splitlines()[:-1]}
    assert rows["columns in"] == "2 (1 of numbers, 1 of text)"
    assert rows["not read"] == "id, truth"
    assert rows["in the graph"] == "LogisticRegression"
    assert rows["transformers differ by"] == "0 of a column's largest value"
    assert {"accuracy", "log loss", "auc"} <= rows.keys()
    assert "✓ registering fraud" in shown.err


def test_a_pickle_needs_trust_where_nobody_can_be_asked(registry, client, files, run, capsys):
    pickled = ("publish", "fraud", files / "p.joblib", "--sample", files / "s.csv")
    assert run(*pickled) == 1
    assert "--trust agrees" in capsys.readouterr().err
    assert client.search_registered_models() == []
    assert run(*pickled, "--trust") == 0
    assert "runs any code that the file holds" in capsys.readouterr().err


@pytest.mark.long
def test_what_is_odd_about_the_sample_is_told(registry, files, run, capsys):
    frame = pd.read_csv(files / "s.csv").sort_values("city").assign(at="2024-01-01")
    frame.to_csv(files / "sorted.csv", index=False)
    publish = ("publish", "fraud", files / "p.skops", "--no-explain", "--sample", files / "sorted.csv")
    assert run(*publish) == 0
    shown = capsys.readouterr().out
    assert (
        "drift of 2 columns, of the predictions and of confidence is watched, in windows of 10,000 rows; of " in shown
    )
    assert "column 'city' drifts from a PSI of" in shown
    assert "the sample is in the order of 'city'. If that is not time" in shown
    assert run(*publish, "--time", "at") == 0
    assert "in the order of" not in capsys.readouterr().out
    assert run(*publish, "--time", "city") == 1
    assert "'city' holds 'Oslo', which is no time" in capsys.readouterr().err
