import pytest

from bench import thresholds
from bench.results import Summary
from bench.scenarios import SUITES
from bench.servers.measured import SERVERS
from bench.thresholds import Threshold


def summary(*, ratio: float | None = 20.0, failed: int = 0) -> Summary:
    return Summary("tabular 4x8", "penstock", 1.0, 1.0, 1.0, 1.0, 10, failed, ratio, ratio, ratio)


FASTER = Threshold("tabular 4x8", "penstock", "throughput_ratio", at_least=15.0)
UNHURT = Threshold("tabular 4x8", "penstock", "failed", at_most=0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([summary()], []),
        ([summary(ratio=15.0)], []),
        ([summary(ratio=14.99)], ["penstock, tabular 4x8: throughput_ratio is 14.99, expected at least 15"]),
        ([summary(failed=1)], ["penstock, tabular 4x8: failed is 1, expected at most 0"]),
        ([summary(ratio=None)], ["penstock, tabular 4x8: throughput_ratio was not measured"]),
        (
            [],
            [
                "penstock, tabular 4x8: throughput_ratio was not measured",
                "penstock, tabular 4x8: failed was not measured",
            ],
        ),
    ],
)
def test_each_missed_threshold_is_a_sentence(found, expected) -> None:
    assert thresholds.violations([FASTER, UNHURT], found) == expected


def test_the_committed_thresholds_name_what_can_be_measured() -> None:
    committed = thresholds.read()
    names = {scenario.name for suite in SUITES.values() for scenario in suite}
    assert {FASTER, UNHURT} <= set(committed)
    assert {threshold.scenario for threshold in committed} <= names
    assert {threshold.server for threshold in committed} <= set(SERVERS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[threshold]]\nscenario='s'\nserver='a'\nmetric='failed'\n",
        "[[threshold]]\nscenario='s'\nserver='a'\nmetric='failed'\nat_most=1\nat_least=1\n",
        "[[threshold]]\nscenario='s'\nserver='a'\nmetric='requests_per_s'\nat_least=1\n",
        "[[threshold]]\nscenario='s'\nserver='a'\nmetric='failed'\nat_mots=1\n",
    ],
)
def test_a_malformed_file_is_refused(text, tmp_path) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"threshold"):
        thresholds.read(file)
