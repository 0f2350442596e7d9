import io

import pytest
from rich.console import Console

from penstock_tools.demo import live
from penstock_tools.demo.live import Rate, VersionRow, Viewer
from penstock_tools.demo.plan import DemoPlan
from penstock_tools.demo.results import DemoMetrics, Reply, ShadowMetrics, Tally

METRICS = DemoMetrics("1", ShadowMetrics("2", 100, 0.9, 0.125, 2.5), {"1": {"temp": 0.9, "dest": 0.1}}, {"1": 20_000})


def tally_of_two():
    tally = Tally("2")
    for version, role in [("1", "champion")] * 9 + [("2", "canary")]:
        tally.answered(Reply(1.0, 0.002, 5, version, role, rows=10, right=7))
    return tally


def rendered(view):
    console = Console(file=io.StringIO(), width=120)
    console.print(live.table(view))
    return console.file.getvalue()


def test_a_view_of_the_moment():
    view = Viewer(DemoPlan(), tally_of_two(), requests=40).view(2.0, METRICS)
    assert (view.done, view.month, view.requests, view.rows, view.failures) == (0.25, 5, 10, 100, 0)
    assert (view.p50_s, view.p99_s, view.requests_per_s) == (0.002, 0.002, None)
    assert view.versions == (
        VersionRow("1", {"champion": 90}, 90, 0.9, 0.7),
        VersionRow("2", {"canary": 10}, 10, 0.1, 0.7),
    )
    assert view.drift == (("temp", 0.9), ("dest", 0.1))


def test_drift_waits_for_a_settled_window():
    metrics = DemoMetrics("1", None, METRICS.drift, {"1": 100})
    view = Viewer(DemoPlan(), tally_of_two(), requests=40).view(2.0, metrics)
    assert view.drift == ()
    assert "the window fills: 100 of" in rendered(view)


def test_more_requests_than_expected_are_not_more_than_all():
    assert Viewer(DemoPlan(), tally_of_two(), requests=5).view(2.0, METRICS).done == 1.0


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([(0.0, 0)], None),
        ([(0.0, 0), (1.0, 10)], 10.0),
        ([(0.0, 0), (1.0, 10), (4.0, 40), (5.0, 80)], 70 / 4),
        ([(0.0, 5), (0.0, 5)], None),
        ([(0.0, 0), (100.0, 50)], 0.5),
    ],
)
def test_a_rate_is_the_growth_of_the_last_seconds(looks, expected):
    rate = Rate(over_s=3.0)
    *_, last = (rate.add(at_s, count) for at_s, count in looks)
    assert last == expected


def test_the_table_shows_every_fact():
    text = rendered(Viewer(DemoPlan(), tally_of_two(), requests=40).view(2.0, METRICS))
    for shown in (
        "25%",
        "2.0 ms",
        "canary 10",
        "champion 90",
        "90.0% of 100 rows",
        "0.125",
        "x2.50",
        "temp 0.90",
        "May",
    ):
        assert shown in text


def test_the_table_of_nothing_yet():
    text = rendered(Viewer(DemoPlan(), Tally("2"), requests=40).view(0.0, DemoMetrics()))
    assert "version 2 becomes champion half-way" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tally: tally.promoted(1.0), "champion in the registry; the server follows"),
        (lambda tally: tally.answered(Reply(1.0, 0.1, 5, "2", "champion", 1, 1)), "version 2 is champion"),
    ],
)
def test_the_table_says_where_the_promotion_stands(change, said):
    tally = tally_of_two()
    change(tally)
    assert said in rendered(Viewer(DemoPlan(), tally, requests=40).view(2.0, METRICS))


def test_the_line_for_logs():
    viewer = Viewer(DemoPlan(), tally_of_two(), requests=40)
    viewer.view(0.0, METRICS)
    assert live.line(viewer.view(2.0, METRICS)) == (
        "  2.0 s  May  100 rows  0/s  p50 2.0 ms  p99 2.0 ms  v1 90.0%  v2 10.0%  shadow agrees 90.0%  "
        "drift temp 0.90  failures 0"
    )
