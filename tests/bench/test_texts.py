import pytest

from bench import texts


@pytest.mark.long  # it trains models, and measures them
def test_both_answer_alike_and_are_timed() -> None:
    found = texts.measure(0.0, rows=200)
    assert [name.partition(" (")[0] for name in found] == ["words", "words and pairs"]
    assert all(0 < seconds < 10 for times in found.values() for pair in times for seconds in pair)


def test_the_table_has_the_ratio() -> None:
    table = texts.table_of({"words (10)": [(1e-6, 5e-5), (2e-6, 2e-5)]})
    assert "1.0, scikit-learn 50.0 (50x)" in table
    assert "(10x)" in table
