import json

import pytest
from typer.testing import CliRunner

from penstock_server.errors import InvalidInputError
from penstock_tools.cli.app import app
from tests.tools.calibration.shifted_rows import frame


@pytest.fixture
def sample(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    path = tmp_path / "fares.csv"
    frame(6000, shift_from=4500).to_csv(path, index=False)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, ["drift-check", *arguments])


def test_a_sample_is_checked_in_a_table_and_a_page(sample, tmp_path):
    page = tmp_path / "alarms.html"
    result = run("--sample", sample, "--time", "at", "--runs", "0", "--html", str(page))
    assert result.exit_code == 0, result.output
    assert "1 alarm in 3,000 rows" in result.output
    assert f"the page is in {page}" in " ".join(result.output.split())
    assert "1 alarm in 3,000 rows" in page.read_text()


def test_as_json(sample):
    result = run(
        "--sample", sample, "--time", "at", "--without", "city", "--train-share", "0.6", "--runs", "0", "--json"
    )
    record = json.loads(result.output)
    assert [column["name"] for column in record["columns"]] == ["amount"]
    assert record["rows"] == 2400


def test_no_rows_are_told():
    assert isinstance(run("fares").exception, InvalidInputError)
