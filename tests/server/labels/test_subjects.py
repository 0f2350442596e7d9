"""What a label is among a version's classes."""

import numpy as np
import pytest

from penstock_server.labels.keys import word_of
from penstock_server.labels.prediction_file import AnsweredVersion
from penstock_server.labels.subjects import ClassTable, Subject

NAN = float("nan")


@pytest.mark.parametrize(
    ("names", "label", "expected"),
    [
        (("no", "yes"), "yes", 1.0),
        (("no", "yes"), "maybe", NAN),
        (("no", "yes"), 1.0, 1.0),
        (("no", "yes"), 2.0, NAN),
        (("no", "yes"), 0.5, NAN),
        (("3", "7"), 7.0, 1.0),
        (("3", "7"), "7", 1.0),
        (("3", "7"), "7.0", 1.0),
        (("3", "7"), 1.0, NAN),
        (("False", "True"), 1.0, 1.0),
        ((), 4.0, 4.0),
        ((), "4", 4.0),
        ((), 4.5, NAN),
        ((), "four", NAN),
    ],
)
def test_a_label_is_a_class_as_answers_count_them(names: tuple[str, ...], label: str | float, expected: float) -> None:
    table = ClassTable(AnsweredVersion("m", "1", class_names=names))
    number, word = label, 0
    if isinstance(label, str):
        word = word_of(label)
        try:
            number = float(label)
        except ValueError:
            number = NAN
    found = table.classes(np.array([number], np.float64), np.array([word], np.uint64))
    np.testing.assert_array_equal(found, [expected])


def test_of_numbers_a_label_is_a_number() -> None:
    table = ClassTable(AnsweredVersion("m", "1", kind="number"))
    np.testing.assert_array_equal(table.classes(np.array([0.25, NAN]), np.zeros(2, np.uint64)), [0.25, NAN])


def test_subjects_without_a_weight_are_alike() -> None:
    version = AnsweredVersion("m", "1")
    assert Subject(version, 0) == Subject(version, 0, NAN)
    assert len({Subject(version, 0), Subject(version, 0, NAN), Subject(version, 0, 0.5)}) == 2
