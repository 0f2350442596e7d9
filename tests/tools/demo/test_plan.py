import doctest
import sys
import tomllib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.settings import ServerSettings
from penstock_tools.demo import plan
from penstock_tools.demo.plan import MAX_WINDOW_ROWS, MIN_ROWS, ROWS_PER_REQUEST, DemoPlan, due_s, request_count


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rows": MIN_ROWS - 1}, "--rows"),
        ({"seconds": 0.5}, "--seconds"),
        ({"seconds": 1e6}, "--seconds"),
        ({"seconds": float("nan")}, "--seconds"),
        ({"workers": 0}, "--workers"),
        ({"port": 65536}, "--port"),
        ({"port": -1}, "--port"),
    ],
)
def test_an_option_out_of_range_is_named(wrong, named):
    with pytest.raises(InvalidInputError, match=f"^{named} is .*; expected"):
        DemoPlan(**wrong)


@given(rows=st.integers(MIN_ROWS, 10**7), workers=st.integers(1, 64))
def test_the_settings_are_the_servers_and_the_window_is_shorter_than_a_month(rows, workers):
    plan = DemoPlan(rows=rows, workers=workers)
    settings = msgspec.convert(tomllib.loads(plan.settings()), ServerSettings)
    assert 0 < plan.settled_rows < plan.window_rows < rows / 9
    assert plan.window_rows <= MAX_WINDOW_ROWS
    assert settings.drift.window_rows == max(10, plan.window_rows // workers)


@given(st.integers(0, 10**6))
def test_requests_hold_all_rows_and_none_is_empty(rows):
    requests = request_count(rows)
    assert requests * ROWS_PER_REQUEST >= rows > (requests - 1) * ROWS_PER_REQUEST - (rows == 0)


def test_requests_are_spread_evenly_and_repeats_go_on_at_the_same_pace():
    assert [due_s(at, 4, 8.0) for at in (0, 1, 4, 5)] == [0.0, 2.0, 8.0, 10.0]


def test_the_command_line_of_the_server(tmp_path):
    line = DemoPlan(workers=3, port=4567).command(registry="sqlite:///r.db", config=tmp_path / "c.toml")
    assert line[:4] == [sys.executable, "-m", "penstock_tools.cli.main", "serve"]
    assert dict(zip(line[4::2], line[5::2], strict=True)) == {
        "--registry": "sqlite:///r.db",
        "--config": str(tmp_path / "c.toml"),
        "--port": "4567",
        "--http-port": "0",
        "--workers": "3",
    }


def test_examples():
    found = doctest.testmod(plan)
    assert found.attempted > 0
    assert found.failed == 0
