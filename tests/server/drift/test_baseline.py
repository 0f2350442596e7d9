import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.baseline import (
    MAX_WORDS,
    AnswerBaseline,
    Baseline,
    HoldOut,
    NumberBaseline,
    check,
    decode,
    encode,
)
from penstock_server.drift.fit import fit_baseline, fit_classes, fit_number, with_predictions
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)

NAN, INF = float("nan"), float("inf")
SPEC = FeatureSpec((NumberColumn("x"), StringColumn("s")), Join((Take(("x",)), Text("s", Categories(("a", "b", "c"))))))
TABLE = {"x": [1.0, 2, 3, 4, NAN, INF, -INF, 4], "s": ["b", "b", "a", "", "?", "b", None, "a"]}
BASELINE = msgspec.structs.replace(
    with_predictions(fit_baseline(SPEC, TABLE, bins=2), fit_classes("label", [1, 0, 1, 1], ("no", "yes"))),
    answers=(
        AnswerBaseline("scores", "largest", fit_number("confidence", np.linspace(0, 1, 8)), HoldOut((1, 1, 2, 0))),
    ),
)


def test_decodes_what_it_encodes() -> None:
    assert decode(encode(BASELINE)) == BASELINE
    check(decode(encode(BASELINE)), SPEC)


def test_reads_a_file_from_before_the_order_and_the_answers_were_kept() -> None:
    document = json.loads(encode(BASELINE))
    for key in ("repeats", "order", "ordered_by", "answers"):
        del document[key]
    found = decode(json.dumps(document).encode())
    assert (found.repeats, found.order, found.ordered_by, found.answers) == (None, "given", (), ())
    assert found.columns == BASELINE.columns


def changed(*path: str | int, to: Any) -> bytes:
    document = json.loads(encode(BASELINE))
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("format", to=1), "format 1 is unknown"),
        (changed("columns", 0, "edges", to=[2, 1]), r"edges\[1\] is 1.0 after 2.0"),
        (changed("columns", 0, "counts", to=[1]), "1 counts and 2 sums for 1 edges"),
        (changed("columns", 0, "sums", to=[1]), "2 counts and 1 sums for 1 edges"),
        (changed("columns", 0, "sums", to=[1, None]), "sums"),
        (changed("columns", 0, "counts", to=[1, -1]), "Expected `int` >= 0"),
        (changed("columns", 0, "counts", to=[1, 2**60]), "Expected `int` <="),
        (changed("columns", 0, "counts", to=[1] * 300), "300 bins, expected at most"),
        (changed("columns", 0, "smallest", to=9), "smallest is 9.0 and largest 4.0"),
        (changed("columns", 0, "deviation", to=-1), "deviation is -1.0"),
        (changed("columns", 0, "dispersion", to=0.5), "dispersion"),
        (changed("columns", 0, "finer", to=[0.5]), "finer"),
        (changed("columns", 0, "finer", to=[1.5] * 17), "finer"),
        (changed("columns", 0, "minimum_effect", to=-1), "minimum_effect"),
        (changed("columns", 1, "watched", to=["a", "a", "b"]), "watched 'a' appears twice, expected it once"),
        (changed("columns", 1, "watched", to=["a", "b", ""]), "the empty string is watched"),
        (changed("columns", 1, "watched", to=["a"]), "3 counts for 1 watched values"),
        (changed("columns", 1, "missing", to=0.5), "missing"),
        (changed("columns", 1, "sums", to=[]), "sums"),
        (changed("predictions", "classes", to=[1, 1]), "class 1 appears twice, expected it once"),
        (changed("predictions", "names", to=["no"]), "1 names for 2 classes"),
        (changed("answers", 0, "numbers", "name", to="s"), "answer 's' has the name of a column or of another answer"),
        (changed("answers", 0, "numbers", "name", to="label"), "answer 'label' has the name of"),
        (changed("answers", to=2 * json.loads(encode(BASELINE))["answers"]), "answer 'confidence' has the name of"),
        (changed("answers", to=9 * json.loads(encode(BASELINE))["answers"]), "9 answers, expected at most 8"),
        (changed("answers", 0, "holdout", to={"correct": [1]}), "expected as many bins, and no more than their rows"),
        (
            changed("answers", 0, "holdout", to={"correct": [99] * 4}),
            "expected as many bins, and no more than their rows",
        ),
        (changed("answers", 0, "holdout", to={"correct": [0] * 4, "variance": 2}), "variance"),
        (changed("answers", 0, "reads", to="smallest"), "Invalid enum value"),
        (changed("answers", 0, "output", to="x" * 2000), "output"),
        (changed("repeats", to=1.5), "repeats"),
        (changed("order", to="random"), "order"),
        (changed("ordered_by", to=["a\n"]), "printable"),
        (b"{}", "format"),
    ],
)
def test_refuses_with_the_place_and_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode(data)


def test_counts_that_would_fill_the_memory_are_refused() -> None:
    wide = NumberBaseline("x", tuple(range(255)), (0,) * 256, (0.0,) * 256)
    columns = tuple(msgspec.structs.replace(wide, name=f"x{at}") for at in range(MAX_WORDS // 517))
    Baseline(columns, "x")
    with pytest.raises(ValueError, match="words of counts, expected at most"):
        Baseline((*columns, wide), "x")


@given(st.binary(max_size=100))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode(data)


def test_another_specifications_baseline_is_refused() -> None:
    other = FeatureSpec((NumberColumn("x"),), Take(("x",)))
    with pytest.raises(InvalidInputError, match="is of the feature specification"):
        check(BASELINE, other)
    forged = msgspec.structs.replace(BASELINE, columns=BASELINE.columns[:1])
    with pytest.raises(InvalidInputError, match="other columns than the specification, expected x, s"):
        check(forged, SPEC)
