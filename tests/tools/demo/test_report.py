import io
from pathlib import Path

import pytest
from rich.console import Console

from penstock_tools.demo import report
from penstock_tools.demo.results import FeatureDrift, Reply, ShadowMetrics, Tally

CONTEXT = report.CommandContext(
    folder="", registry="sqlite:////tmp/my demo/registry.db", rows=Path("/tmp/my demo/rows.json")
)


def finished():
    tally = Tally("2")
    for version, role, at_s in [("1", "champion", 1.0), ("2", "canary", 2.0)]:
        tally.answered(Reply(at_s, 0.002, 4, version, role, 8, 6))
    tally.promoted(3.0)
    tally.answered(Reply(4.5, 0.01, 5, "2", "champion", 8, 8))
    return tally


def test_the_table_holds_what_happened():
    outcome = report.Outcome(
        finished(),
        ShadowMetrics("2", 1234, 0.975, 0.1, 2.0),
        [FeatureDrift("temp", 0.92, 7, 4), FeatureDrift("dest", 0.1, 9, None)],
        [],
    )
    console = Console(file=io.StringIO(), width=140)
    console.print(report.table(outcome))
    text = console.file.getvalue()
    for shown in (
        "3 (24 rows)",
        "2.0 ms, 10.0 ms",
        "50.0% before the promotion, 100.0% after",
        "in the registry at 3.0 s; the replies switched 1.5 s later",
        "version 1 75.0%, version 2 75.0%, before the promotion",
        "the same class in 97.5% of 1,234 rows",
        "temp: first over 0.2 in Apr, 0.92 in Jul",
        "dest: never over 0.2, 0.10 in Sep",
    ):
        assert shown in text


def test_a_table_of_nothing():
    console = Console(file=io.StringIO(), width=140)
    console.print(report.table(report.Outcome(Tally("2"), None, [], [])))
    assert "never reached the registry" in console.file.getvalue()


@pytest.mark.parametrize("exit_code", [0, None])
def test_no_problems(exit_code):
    assert report.problems(finished(), exit_code) == []


def test_each_problem_is_a_sentence():
    tally = Tally("2")
    tally.failed("the queue is full")
    assert report.problems(tally, -9) == [
        "1 requests failed, 1 of them with: the queue is full",
        "no reply came from version 2 as champion",
        "the server ended with exit code -9; expected 0",
    ]


def test_one_failure_among_many_is_a_problem():
    tally = finished()
    tally.failed("too slow")
    assert len(report.problems(tally, 0)) == 1


def test_a_promotion_without_a_reply():
    tally = Tally("2")
    tally.promoted(3.0)
    assert report.promotion(tally) == "in the registry at 3.0 s, and no reply showed it"


def test_commands_can_be_pasted():
    commands = [command for command, _ in report.commands_now(CONTEXT, "h:1", "h:2", "1")]
    assert "penstock promote flights 1 --registry 'sqlite:////tmp/my demo/registry.db'" in commands
    assert "penstock predict flights '/tmp/my demo/rows.json' --server h:1" in commands
    assert "penstock models --http http://h:2" in commands


@pytest.mark.parametrize("made", [report.commands_later, report.commands_from_scratch])
def test_commands_begin_where_they_are_installed(made):
    context = report.CommandContext(".venv/bin/", CONTEXT.registry, CONTEXT.rows)
    assert all(command.startswith(".venv/bin/") for command, _ in made(context))
