import pytest

from bench.scenarios import FULL, QUICK, SUITES, TABULAR, Scenario


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        (Scenario("tabular", 4, 8), "tabular 4x8"),
        (Scenario("mlp", 1, 1, rows=16), "mlp 1x1 16 rows"),
        (Scenario("tabular", 2, 2, rate_per_s=5000), "tabular 2x2 5000/s"),
    ],
)
def test_a_scenario_is_named_by_its_load(scenario, name) -> None:
    assert scenario.name == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "other"},
        {"connections": 0},
        {"streams": 0},
        {"rows": 0},
        {"rate_per_s": 0},
        {"rate_per_s": float("nan")},
    ],
)
def test_a_scenario_is_checked_when_made(wrong) -> None:
    with pytest.raises(ValueError, match=r"no model|must be"):
        Scenario(**({"model": "tabular", "connections": 1, "streams": 1} | wrong))


def test_names_are_unique_and_the_tabular_shapes_are_the_published_ones() -> None:
    names = [scenario.name for suite in SUITES.values() for scenario in suite]
    assert len(names) == len(set(names))
    assert [(each.connections, each.streams) for each in TABULAR] == [(1, 1), (4, 2), (4, 8), (8, 8), (64, 1)]


def test_a_quick_comparison_of_two_servers_takes_less_than_a_minute_of_load() -> None:
    assert 2 * len(TABULAR) * QUICK.rounds * (QUICK.warmup_s + QUICK.duration_s) < 60
    assert QUICK.rounds < FULL.rounds
