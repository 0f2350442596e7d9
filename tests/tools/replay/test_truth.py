import pandas as pd
import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools.replay.truth import TruthFile, truth_of
from tests.server.labels.test_joiner import World


def test_labels_are_found_by_request_and_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("request_id,row,label,more\n007,0,yes,x\n007,1,no,x\n8,0,,x\n")
    truth = TruthFile(path)
    assert len(truth) == 2
    assert truth.of(["007", "007", "7", "8"], [0, 1, 0, 0]) == ["yes", "no", None, None]


def test_without_rows_a_label_is_of_the_first(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"id": ["a", "b"], "label": [1.0, 2.0]}).to_parquet(path)
    assert TruthFile(path).of(["a", "a", "b"], [0, 1, 0]) == [1.0, None, 2.0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "x", "expected .csv or .parquet"),
        ("a.csv", None, "there is no file"),
        ("a.csv", "key,label\n1,2\n", "has the columns key, label; expected id and label"),
        ("a.csv", "id,label\n1,2\n1,3\n", "2 labels for 1 rows"),
        ("a.parquet", "x", "does not read as parquet"),
    ],
)
def test_what_is_no_file_of_labels_is_told(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError, match=words):
        truth_of(tmp_path / name, "fraud")


def test_a_folder_is_that_of_a_servers_labels(tmp_path):
    world = World(tmp_path)
    world.answer("a", 1.0)
    world.after(0.5)
    world.label("a", "yes")
    world.after(2)
    assert truth_of(tmp_path, "fraud").of(["a", "b"], [0, 0]) == ["yes", None]
    with pytest.raises(InvalidInputError, match="holds no labels"):
        truth_of(tmp_path / "answers", "fraud")
