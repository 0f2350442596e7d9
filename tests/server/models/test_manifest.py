import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.models import manifest
from penstock_server.models.manifest import Manifest

DIGEST = "sha256:" + "0" * 64
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("classes", [None, ("no", "yes"), (0, 1, 2), ("0", 1)])
def test_a_manifest_survives_json(classes: tuple[str | int, ...] | None) -> None:
    made = Manifest(files={"model.onnx": DIGEST}, created=WHEN, class_output="label", classes=classes)
    assert manifest.decode(manifest.encode(made)) == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batching": "row"}, "Invalid enum value 'row'"),
        ({"threads": 0}, ">= 1"),
        ({"graph_optimization": "most"}, "Invalid enum value 'most'"),
        ({"format": 2}, "format is 2; this release reads format 1"),
        ({"files": {"a": "md5:0"}}, "matching regex"),
        ({"files": {f"f{i}": DIGEST for i in range(10_001)}}, "names 10,001 files"),
        ({"created": "yesterday"}, "Invalid RFC3339"),
        ({"created": "2026-01-02T03:04:05"}, "timezone"),
        ({"classes": []}, "classes holds 0 labels"),
        ({"classes": [1, "1"]}, "names a label twice"),
        ({"classes": [1.5]}, r"classes\[0\]"),
        ({"signature": ""}, "unknown field `signature`"),
    ],
)
def test_what_is_not_understood_is_refused(change: dict[str, Any], said: str) -> None:
    raw = msgspec.json.encode({"format": 1, "files": {}, "created": "2026-01-02T03:04:05Z", **change})
    with pytest.raises(InvalidInputError, match=said):
        manifest.decode(raw)


@pytest.mark.parametrize(
    "given",
    [{}, {"batching": "rows"}, {"batching": "request", "threads": 1}, {"threads": 4, "graph_optimization": "basic"}],
)
def test_what_older_servers_do_not_know_is_there_only_if_it_was_given(given: dict[str, Any]) -> None:
    """They refuse a manifest with such a field."""
    made = Manifest(files={}, created=WHEN, **given)
    assert manifest.decode(manifest.encode(made)) == made
    newer = {"batching", "threads", "graph_optimization"}
    assert newer & set(msgspec.json.decode(manifest.encode(made))) == set(given)


@given(st.binary())
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        manifest.decode(raw)


def test_digests_cover_weights_but_not_what_mlflow_may_rewrite(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.onnx.data", "MLmodel", "conda.yaml", "skipped"):
        (tmp_path / name).write_text(name)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "0").write_text("w")
    assert set(manifest.digests(tmp_path, besides=["skipped"])) == {"model.onnx", "model.onnx.data", "weights/0"}


def test_a_file_that_changed_or_went_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"one")
    made = Manifest(files=manifest.digests(tmp_path), created=WHEN)
    manifest.verify(made, tmp_path, known={})
    (tmp_path / "model.onnx").write_bytes(b"two")
    with pytest.raises(InvalidInputError, match=r"file 'model.onnx' has changed since it was published"):
        manifest.verify(made, tmp_path, known={})
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(InvalidInputError, match=r"file 'model.onnx' is missing"):
        manifest.verify(made, tmp_path, known={})


def test_known_digests_are_believed_and_compared(tmp_path: Path) -> None:
    made = Manifest(files={"gone": DIGEST}, created=WHEN)
    manifest.verify(made, tmp_path, known={"gone": DIGEST})
    with pytest.raises(InvalidInputError, match="file 'gone' has changed"):
        manifest.verify(made, tmp_path, known={"gone": "sha256:1"})
