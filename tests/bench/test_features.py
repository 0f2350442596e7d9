import pytest

from bench import features
from penstock_server.features.spec.spec import FeatureSpec, Join
from penstock_server.features.spec.steps import Fill


def test_all_implementations_give_the_same_and_are_timed() -> None:
    found = features.measure(0.0)
    penstock = ["Penstock", "Penstock, counting drift", "Penstock, every row counted"]
    assert list(found) == [*penstock, "onnxruntime", "scikit-learn"]
    assert all(0 < each < 10 for times in found.values() for each in times)
    assert found["Penstock"][0] < found["scikit-learn"][0]


def test_an_implementation_with_other_outputs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = features.specification

    def other(transformer: object, table: features.Table) -> FeatureSpec:
        spec = real(transformer, table)
        return FeatureSpec(spec.columns, Join((spec.features,), (Fill((1.0,), 0.0),)))

    monkeypatch.setattr(features, "specification", other)
    with pytest.raises(AssertionError, match="Not equal"):
        features.measure(0.0)


def test_the_table_has_multiples_of_the_first() -> None:
    table = features.table_of({"one": [1e-6, 2e-6, 3e-6], "other": [2e-6, 1e-6, 3e-3]})
    assert "2.0 (2.0x)" in table
    assert "1.0 (0.5x)" in table
    assert "3,000.0 (1,000.0x)" in table


@pytest.mark.parametrize(("counting_s", "expected"), [(1.1, 0), (1.24, 0), (1.26, 1), (0.9, 0)])
def test_it_fails_where_counting_adds_too_much_to_the_largest_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], counting_s: float, expected: int
) -> None:
    found = {features.PLAIN: [1.0, 1.0, 1.0], features.COUNTING: [1.5, 2.0, counting_s]}
    monkeypatch.setattr(features, "measure", lambda _: found)
    monkeypatch.setattr("sys.argv", ["features"])
    assert features.main() == expected
    output = capsys.readouterr().out
    assert "50% at 1, 100% at 64, " in output
    assert "at most 15% is asked at 1,024, and 25% fails" in output
