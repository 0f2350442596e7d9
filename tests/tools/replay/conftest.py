"""Published versions in folders, and request logs as a server writes them."""

import itertools

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock.tensors import datatype_of, to_raw
from penstock_server.models import artifact
from penstock_server.request_log.compactor import RequestLogFolder
from penstock_server.request_log.files import CLOSED, SPOOL
from penstock_server.request_log.segment import FORMAT, LoggedRequest, LoggedTensor, SegmentHeader, framed
from penstock_tools.publish.pipeline import prepare

FIRST_S = 1_767_225_600.0  # 2026-01-01
_numbers = itertools.count()


def columns(numbers=("age",), texts=("city",)):
    return ColumnTransformer(
        [("numbers", StandardScaler(), list(numbers)), ("texts", OneHotEncoder(handle_unknown="ignore"), list(texts))]
    )


@pytest.fixture(scope="session")
def versions(tmp_path_factory, frame, answers):
    """Folders of versions of `age` and `city`: two classifiers of text classes, one that needs `fare` too, and a regressor."""
    known = frame.assign(age=frame["age"].fillna(40.0), city=frame["city"].fillna("Oslo"))
    inputs = known[["age", "city"]]
    told = np.where(answers["binary"] == answers["binary"][0], "stays", "leaves")
    fitted = {
        "1": make_pipeline(columns(), LogisticRegression()).fit(inputs, told),
        "2": make_pipeline(columns(), LogisticRegression(C=0.001)).fit(inputs, told),
        "3": make_pipeline(columns(("age", "fare")), LogisticRegression()).fit(known[["age", "fare", "city"]], told),
        "regressor": make_pipeline(columns(), LinearRegression()).fit(inputs, known["fare"]),
    }
    found = {}
    for name, pipeline in fitted.items():
        prepared = prepare(pipeline, known[list(pipeline.feature_names_in_)])
        folder = tmp_path_factory.mktemp("version")
        (folder / "model.onnx").write_bytes(prepared.graph.model.SerializeToString())
        (folder / "MLmodel").write_text("flavors: {}")
        graph = prepared.graph
        artifact.write(folder, features=prepared.features, classes=graph.classes, class_output=graph.class_output)
        found[name] = folder, pipeline
    return found


@pytest.fixture(scope="session")
def rows(frame):
    """Rows that a server might get: 200 of a known age and city."""
    return frame.assign(age=frame["age"].fillna(40.0), city=frame["city"].fillna("Rome"))[["age", "city"]].head(200)


def logged(folder, model, version, blocks, outputs, *, role="champion", rows_each=2, first=0, is_list=()):
    """Writes a request log of requests of so many rows, `r0`, `r1` and so on, a minute apart.

    Args:
        blocks: names and array of each block of inputs.
        outputs: names and arrays, whose rows are the log's.
        is_list: those of them that are lists in each row.
    """
    total = len(next(iter(outputs.values())))
    header = SegmentHeader(
        model,
        version,
        tuple(LoggedTensor(names, datatype_of(array.dtype), is_list=names[0] in is_list) for names, array in blocks),
        tuple(
            LoggedTensor((name,), datatype_of(each.dtype), is_list=name in is_list) for name, each in outputs.items()
        ),
    )
    requests = [
        LoggedRequest(
            FIRST_S + 60 * at,
            f"r{first + at}",
            role,
            rows_each,
            tuple(to_raw(array[begin : begin + rows_each]) for _, array in blocks),
            tuple(to_raw(array[begin : begin + rows_each]) for array in outputs.values()),
        )
        for at, begin in enumerate(range(0, total, rows_each))
    ]
    spool = folder / SPOOL
    spool.mkdir(parents=True, exist_ok=True)
    name = f"{next(_numbers):06}{CLOSED}"
    (spool / name).write_bytes(FORMAT + framed(header) + b"".join(map(framed, requests)))
    RequestLogFolder(folder, 10**9).step()


@pytest.fixture
def log(tmp_path, versions, rows):
    """The log of a server that answered the rows with version 1."""
    folder = tmp_path / "log"
    pipeline = versions["1"][1]
    logged(
        folder,
        "stay",
        "1",
        [(("age",), rows["age"].to_numpy()), (("city",), rows["city"].to_numpy(object))],
        {
            "label": pipeline.predict(rows).astype(object),
            "probabilities": pipeline.predict_proba(rows).astype(np.float32),
        },
        is_list=("probabilities",),
    )
    return folder
