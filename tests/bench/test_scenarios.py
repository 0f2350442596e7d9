import pytest

from bench.scenarios import FULL, QUICK, SUITE_SERVERS, SUITES, TABULAR, Scenario
from bench.servers.measured import SERVERS


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        (Scenario("tabular", 4, 8), "tabular 4x8"),
        (Scenario("mlp", 1, 1, rows=16), "mlp 1x1 16 rows"),
        (Scenario("tabular", 2, 2, rate_per_s=5000), "tabular 2x2 5000/s"),
        (Scenario("tabular", 8, 8, copies=200), "tabular 8x8 200 models"),
        (Scenario("mlp", 8, 8, load_factor=2.0, deadline_s=0.1), "mlp 8x8 2x capacity within 100 ms"),
        (Scenario("tabular", 8, 8, idle=4000), "tabular 8x8 beside 4,000 idle"),
        (Scenario("tabular", 4, 2, beside="slow"), "tabular 4x2 beside slow"),
        (Scenario("tabular", 8, 8, deadline_s=1.0, is_keyed=True), "tabular 8x8 with ids and keys within 1000 ms"),
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
        {"copies": 0},
        {"load_factor": -1.0},
        {"deadline_s": 0},
        {"idle": -1},
        {"beside": "other"},
        {"rate_per_s": 5.0, "load_factor": 2.0},
    ],
)
def test_a_scenario_is_checked_when_made(wrong) -> None:
    with pytest.raises(ValueError, match=r"no model|must be"):
        Scenario(**({"model": "tabular", "connections": 1, "streams": 1} | wrong))


def test_a_name_means_one_load_and_the_tabular_shapes_are_the_published_ones() -> None:
    scenarios = {scenario for suite in SUITES.values() for scenario in suite}
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    assert [(each.connections, each.streams) for each in TABULAR] == [(1, 1), (4, 2), (4, 8), (8, 8), (64, 1)]


def test_the_servers_of_suites_exist() -> None:
    assert SUITE_SERVERS.keys() <= SUITES.keys()
    assert {name for names in SUITE_SERVERS.values() for name in names} <= SERVERS.keys()


def test_a_scenario_names_all_models_that_get_requests() -> None:
    assert Scenario("tabular", 1, 1, copies=2, beside="slow").models == {"tabular-000", "tabular-001", "slow"}


def test_a_quick_comparison_of_two_servers_takes_less_than_a_minute_of_load() -> None:
    assert 2 * len(TABULAR) * QUICK.count * (QUICK.warmup_s + QUICK.duration_s) < 60
    assert QUICK.count < FULL.count
