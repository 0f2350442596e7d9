import pytest

from penstock import inference_pb2, names, penstock_pb2


@pytest.mark.parametrize(
    ("module", "service", "method"),
    [
        (inference_pb2, names.INFERENCE_SERVICE, names.INFER_METHOD),
        (penstock_pb2, names.CONTROL_SERVICE, names.DRIFT_STATE_METHOD),
    ],
)
def test_the_services_are_those_of_the_proto_files(module, service, method) -> None:
    (found,) = module.DESCRIPTOR.services_by_name.values()
    assert found.full_name == service
    assert method in found.methods_by_name


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("fruad", ["flights", "fraud"], "; did you mean 'fraud'?"),
        ("PETAL_LENGTH", ["petal_width", "petal_length"], "; did you mean 'petal_length'?"),
        ("max_row", ["max_rows", "max_delay_s"], "; did you mean 'max_rows'?"),
        ("quarterly", ["fraud"], ""),
        ("", ["fraud"], ""),
        ("fraud", [], ""),
    ],
)
def test_a_near_name_is_found(name, known, expected) -> None:
    assert names.did_you_mean(name, known) == expected


def test_long_words_take_no_time() -> None:
    assert names.closest("x" * 1_000_000, ["y" * 1_000_000] * 5000) is None
