import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_tools import output, progress
from penstock_tools.replay.replay import Request, replay
from tests.tools.replay.conftest import logged


def replayed(log, folder, labels=None):
    with progress.bars() as bars:
        return replay(Request(log, str(folder), labels), bars)


@pytest.mark.long
def test_the_version_that_answered_agrees_with_itself(log, versions):
    found = replayed(log, versions["1"][0])
    assert (found.rows, found.compared, found.agreement.share) == (200, 200, 1.0)
    assert found.versions == {"1": 200}
    assert (found.first, found.last) == ("2026-01-01T00:00:00Z", "2026-01-01T01:39:00Z")
    assert found.distances.largest < 1e-5
    assert (found.changed, found.truth, found.errors) == ((), None, None)
    assert (found.refused, found.failed, found.incompatible) == ((), (), ())


def test_another_version_is_compared_row_by_row(log, versions, rows):
    first, second = versions["1"][1], versions["2"][1]
    before, now = first.predict(rows), second.predict(rows)
    gap = np.abs(first.predict_proba(rows) - second.predict_proba(rows)).max(axis=1)
    assert 0 < (before != now).sum() < 200
    found = replayed(log, versions["2"][0])
    assert found.agreement.rows == (before == now).sum()
    assert found.agreement.low < found.agreement.share < found.agreement.high
    assert found.disagreement == pytest.approx((before != now).mean())
    told = {one.name: (one.agreement.rows, one.agreement.of) for one in found.by_class}
    assert told == {
        name: (((before == name) & (now == name)).sum(), (before == name).sum()) for name in ("leaves", "stays")
    }
    changes = pd.Series(list(zip(before, now, strict=True)))[before != now].value_counts().to_dict()
    assert {(one.logged, one.candidate): one.rows for one in found.changed} == changes
    assert found.distances.mean == pytest.approx(gap.mean(), abs=1e-6)
    assert found.distances.p90 == pytest.approx(np.quantile(gap, 0.9), abs=1e-6)
    assert sum(found.distances.rows) == 200


def test_the_rows_that_are_farthest_apart_are_named(log, versions, rows):
    first, second = versions["1"][1], versions["2"][1]
    gap = np.abs(first.predict_proba(rows) - second.predict_proba(rows)).max(axis=1)
    changed = first.predict(rows) != second.predict(rows)
    found = replayed(log, versions["2"][0]).different
    best = np.lexsort((-gap, ~changed))[: len(found)]
    assert [(one.request_id, one.row) for one in found] == [(f"r{at // 2}", at % 2) for at in best]
    assert [one.distance for one in found] == pytest.approx(gap[best].tolist(), abs=1e-6)
    one = found[0]
    assert (one.version, one.logged, one.candidate) == (
        "1",
        first.predict(rows)[best[0]],
        second.predict(rows)[best[0]],
    )
    assert one.time.startswith("2026-01-01T")


def test_labels_make_a_paired_table(log, versions, rows, tmp_path):
    before, now = versions["1"][1].predict(rows), versions["2"][1].predict(rows)
    truth = np.where(np.arange(200) % 3, before, "leaves").astype(object)
    table = pd.DataFrame({"id": [f"r{at // 2}" for at in range(200)], "row": np.arange(200) % 2, "label": truth})
    table.loc[7, "label"] = "unheard of"
    path = tmp_path / "labels.csv"
    table.drop(index=range(100, 150)).to_csv(path, index=False)
    found = replayed(log, versions["2"][0], path).truth
    kept = np.r_[0:7, 8:100, 150:200]
    right = (before == truth)[kept], (now == truth)[kept]
    assert (found.logged.rows, found.logged.of) == (right[0].sum(), len(kept))
    assert found.candidate.rows == right[1].sum()
    assert found.only_candidate == (right[1] & ~right[0]).sum()
    assert found.only_logged == (right[0] & ~right[1]).sum()
    assert found.both + found.neither + found.only_candidate + found.only_logged == len(kept)
    assert found.unknown == 1
    assert found.low <= found.candidate.share - found.logged.share <= found.high
    assert found.e_value > 0


def test_numbers_are_judged_by_their_errors(versions, rows, tmp_path):
    folder, pipeline = versions["regressor"]
    answered = pipeline.predict(rows) + 1.0
    inputs = [(("age",), rows["age"].to_numpy()), (("city",), rows["city"].to_numpy(object))]
    logged(tmp_path / "log", "fare", "1", inputs, {"prediction": answered.astype(np.float32)}, rows_each=1)
    pd.DataFrame({"id": [f"r{at}" for at in range(200)], "label": pipeline.predict(rows)}).to_parquet(
        tmp_path / "truth.parquet"
    )
    found = replayed(tmp_path / "log", folder, tmp_path / "truth.parquet")
    assert (found.agreement.share, found.by_class) == (0.0, ())
    assert found.errors.mean_absolute == pytest.approx((1.0, 0.0), abs=1e-4)
    assert (found.errors.rows, found.errors.closer, found.errors.farther) == (200, 200, 0)
    one = found.different[0]
    assert one.candidate_value == pytest.approx(one.logged_value - 1.0, abs=1e-4)
    assert (one.logged, one.candidate) == (None, None)


def test_a_label_that_is_no_number_is_told(versions, rows, tmp_path):
    folder, pipeline = versions["regressor"]
    inputs = [(("age",), rows["age"].to_numpy()), (("city",), rows["city"].to_numpy(object))]
    logged(tmp_path / "log", "fare", "1", inputs, {"prediction": pipeline.predict(rows)})
    (tmp_path / "truth.csv").write_text("id,label\nr0,much\n")
    with pytest.raises(InvalidInputError, match="a label is no number"):
        replayed(tmp_path / "log", folder, tmp_path / "truth.csv")


def test_columns_that_the_log_lacks_are_named(log, versions):
    found = replayed(log, versions["3"][0])
    assert [(one.reason, one.rows) for one in found.incompatible] == [("fare", 200)]
    assert (found.compared, found.disagreement, found.agreement.share) == (0, None, None)
    assert found.distances.median is None


def test_rows_that_the_version_refuses_are_counted_and_the_others_compared(versions, rows, tmp_path):
    folder, pipeline = versions["1"]
    ages = rows["age"].to_numpy(copy=True)
    ages[[3, 100, 101]] = np.nan
    inputs = [(("age",), ages), (("city",), rows["city"].to_numpy(object))]
    logged(tmp_path / "log", "stay", "1", inputs, {"label": pipeline.predict(rows).astype(object)})
    found = replayed(tmp_path / "log", folder)
    assert (found.compared, found.agreement.share) == (197, 1.0)
    ((reason, count),) = [(one.reason, one.rows) for one in found.refused]
    assert count == 3
    assert "age" in reason


def test_a_column_of_another_kind_refuses_all_rows_at_once(versions, rows, tmp_path):
    inputs = [(("age",), rows["city"].to_numpy(object)), (("city",), rows["city"].to_numpy(object))]
    logged(tmp_path / "log", "stay", "1", inputs, {"label": rows["city"].to_numpy(object)})
    found = replayed(tmp_path / "log", versions["1"][0])
    assert [one.rows for one in found.refused] == [200]
    assert "expected a number" in found.refused[0].reason


def test_what_a_shadow_answered_is_left_out(log, versions, rows):
    inputs = [(("age",), rows["age"].to_numpy()), (("city",), rows["city"].to_numpy(object))]
    logged(log, "stay", "2", inputs, {"label": versions["2"][1].predict(rows).astype(object)}, role="shadow")
    assert replayed(log, versions["1"][0]).versions == {"1": 200}


def test_answers_without_anything_in_common_are_told(versions, rows, tmp_path):
    inputs = [(("age",), rows["age"].to_numpy()), (("city",), rows["city"].to_numpy(object))]
    logged(tmp_path / "log", "stay", "1", inputs, {"verdict": rows["city"].to_numpy(object)})
    with pytest.raises(InvalidInputError, match=r"outputs \(verdict\) .* neither classes nor numbers"):
        replayed(tmp_path / "log", versions["1"][0])


def plain_version(folder, operator, shape, **attributes):
    """A graph alone of one operator, from `x` to `y` of the same shape."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def test_a_plain_graph_takes_the_matrix_of_the_log(tmp_path):
    folder = plain_version(tmp_path / "version", "Neg", ["N", 2])
    x = np.arange(20.0, dtype=np.float32).reshape(10, 2)
    logged(tmp_path / "log", "neg", "1", [(("x",), x)], {"y": -x}, is_list=("x", "y"))
    found = replayed(tmp_path / "log", folder)
    assert (found.compared, found.agreement.share, found.distances.largest) == (10, 1.0, 0.0)


def test_requests_that_ran_alone_are_replayed_one_by_one(tmp_path):
    """A softmax over a request's rows: each row of the log holds a whole request, of another length."""
    folder = plain_version(tmp_path / "version", "Softmax", ["N"], axis=0)
    for at, size in enumerate((2, 3, 3)):
        x = np.arange(size, dtype=np.float32)
        y = np.exp(x) / np.exp(x).sum() + (0.5 if at == 2 else 0.0)
        inputs, outputs = [(("x",), x[None])], {"y": y[None].astype(np.float32)}
        logged(tmp_path / "log", "soft", "1", inputs, outputs, rows_each=1, first=at, is_list=("x", "y"))
    found = replayed(tmp_path / "log", folder)
    assert (found.rows, found.compared, found.agreement.rows) == (3, 3, 2)
    assert found.different[0].request_id == "r2"
    assert found.different[0].distance == pytest.approx(0.5, abs=1e-6)


def test_shapes_that_the_log_does_not_keep_are_refused(tmp_path):
    folder = plain_version(tmp_path / "version", "Softmax", ["N", "M"], axis=0)
    x = np.ones((1, 4), np.float32)
    logged(tmp_path / "log", "soft", "1", [(("x",), x)], {"y": x}, rows_each=1, is_list=("x", "y"))
    found = replayed(tmp_path / "log", folder)
    assert "does not say what its free dimensions were" in found.refused[0].reason


def test_a_log_that_is_not_there_is_told(tmp_path, versions):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no rows were logged"):
        replayed(tmp_path / "empty", versions["1"][0])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InvalidInputError, match="no file of a request log"):
        replayed(tmp_path / "a.txt", versions["1"][0])
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="does not read as a file of a request log"):
        replayed(tmp_path / "a.parquet", versions["1"][0])


def test_only_rows_of_a_time_are_replayed(log, versions):
    """Requests of two rows, a minute apart."""
    day = datetime(2026, 1, 1, tzinfo=UTC)
    request = Request(log, str(versions["1"][0]), since=day + timedelta(minutes=10), until=day + timedelta(minutes=20))
    with progress.bars() as bars:
        found = replay(request, bars)
    assert (found.rows, found.first, found.last) == (20, "2026-01-01T00:10:00Z", "2026-01-01T00:19:00Z")


def test_one_file_is_a_log_too_and_a_report_is_json(log, versions):
    (file,) = log.rglob("*.parquet")
    record = json.loads(output.as_json(replayed(file, versions["2"][0])))
    assert record["agreement"]["of"] == 200
    assert record["by_class"][0]["name"] == "leaves"
