from bench import report
from bench.results import Measurement


def test_reasons_of_failures_are_counted_over_the_rounds() -> None:
    rounds = [
        Measurement("s", "a", number, 1.0, None, None, None, 9, failures)
        for number, failures in enumerate(({"late": 2}, {}, {"late": 1, "lost": 1}))
    ]
    assert report.reasons(rounds) == ["a: 3 × late", "a: 1 × lost"]
