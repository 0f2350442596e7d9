import json

import pandas as pd
import pytest

from penstock_tools.publish.registry import experiment_id


@pytest.fixture
def rows(files):
    """A CSV file of payments with an id."""
    frame = pd.read_csv(files / "s.csv")
    frame["id"] = range(len(frame))
    frame.to_csv(files / "rows.csv", index=False)
    return frame


@pytest.fixture
def published(registry, files, run, capsys):
    options = ("--sample", files / "s.csv", "--no-explain", "--alias", "champion")
    assert run("publish", "fraud", files / "p.skops", *options) == 0
    capsys.readouterr()


@pytest.mark.long
def test_a_table_is_scored_and_the_job_is_a_run(published, rows, client, files, run, capsys):
    given = ("batch", "fraud", files / "rows.csv", files / "scores.parquet", "--key", "id", "--processes", "1")
    assert run(*given, "--job", "monday", "--drift", files / "drift.html") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"fraud version 1 scored {len(rows):,} rows in ")
    assert lines[-2] == f"the answers are in {files / 'scores.parquet'}"
    assert pd.read_parquet(files / "scores.parquet")["id"].tolist() == rows["id"].tolist()
    assert (files / "drift.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    tracked = client.get_run(lines[-1].removeprefix("MLflow's run is "))
    assert tracked.info.run_name == "batch fraud 1"
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["rows"] == len(rows)
    assert tracked.data.params["input"] == str(files / "rows.csv")
    assert {each.path for each in client.list_artifacts(tracked.info.run_id)} == {"drift.html", "drift.json"}
    assert [name for name in tracked.data.metrics if name.startswith("drift_")]


@pytest.mark.long
def test_a_finished_job_is_not_done_again_and_leaves_no_run(published, rows, client, files, run, capsys):
    given = ("batch", "fraud", files / "rows.csv", files / "scores", "--processes", "1", "--job", "monday")
    assert run(*given, "--no-track") == 0
    assert "MLflow's run" not in capsys.readouterr().out
    assert run(*given) == 0
    assert capsys.readouterr().out == "a job of this name has scored with fraud already, and nothing is left to do\n"
    assert [each for each in client.search_runs([experiment_id(client)]) if "batch" in each.info.run_name] == []


@pytest.mark.long
def test_json_is_the_record(published, rows, files, run, capsys):
    given = ("batch", "fraud", files / "rows.csv", files / "scores.csv", "--processes", "1", "--no-track", "--json")
    assert run(*given) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["version"], found["rows"], found["was_finished"]) == ("fraud", "1", len(rows), False)
    assert sum(found["classes"].values()) == len(rows)
    assert found["drift"]["version"] == "1"


@pytest.mark.long
def test_what_is_wrong_is_one_sentence(published, rows, files, run, capsys):
    assert run("batch", "fraud", files / "nothing.csv", files / "scores") == 1
    assert capsys.readouterr().err == f"penstock: there is no {files / 'nothing.csv'}\n"
    assert run("batch", "frauds", files / "rows.csv", files / "scores") == 1
    assert "frauds" in capsys.readouterr().err
    rows.drop(columns="city").to_csv(files / "rows.csv", index=False)
    assert run("batch", "fraud", files / "rows.csv", files / "scores") == 1
    assert "the input lacks column 'city'" in capsys.readouterr().err
    assert not (files / "scores").exists()
