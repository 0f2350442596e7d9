"""One whole run with the baseline alone, and what the baseline answers."""

import json

import grpc
import numpy as np
import pytest
from rich.console import Console

from bench import __main__ as command
from bench import inference, models, report, session
from bench.load import generator
from bench.load.plan import LoadPlan
from bench.results import Measurement, summarise
from bench.scenarios import SUITES, Effort, Scenario
from bench.servers.measured import BASELINE, CONTESTANTS, ServerProcess
from bench.thresholds import Floor


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return models.write(tmp_path_factory.mktemp("models"), {"mlp"})


@pytest.fixture(scope="module")
def baseline(files):
    folder = files["mlp"].parents[2]
    with ServerProcess(CONTESTANTS[BASELINE].command(folder, files)) as server:
        yield server.grpc


def test_the_baseline_answers_what_the_model_says(baseline, files) -> None:
    sent = inference.messages("mlp", rows=3)
    inference.check(baseline, sent, inference.expected(files["mlp"], "mlp", rows=3))
    wrong = [{"scores": array["scores"] + 1} for array in inference.expected(files["mlp"], "mlp", rows=3)]
    with pytest.raises(inference.WrongAnswerError, match="'scores' differs"):
        inference.check(baseline, sent, wrong)


def test_the_generator_and_grpc_aio_understand_each_other(baseline) -> None:
    plan = LoadPlan(
        baseline,
        inference.METHOD,
        inference.messages("mlp", rows=1),
        connections=3,
        streams=4,
        max_requests=90,
        duration_s=30,
    )
    result = generator.run(plan)
    assert (result.attempted, result.succeeded, result.failures) == (90, 90, {})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"raw_input_contents": []}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"raw_input_contents": [b"abc"]}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_the_baseline_refuses_what_it_cannot_run(baseline, change, code) -> None:
    request = inference.request("mlp", models.sample("mlp", rows=1))
    for field, value in change.items():
        request.ClearField(field)
        request.MergeFrom(type(request)(**{field: value}))
    with inference.channel(baseline) as channel, pytest.raises(grpc.RpcError) as caught:
        inference.infer(channel)(request.SerializeToString(), timeout=10)
    assert caught.value.code() is code


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ({"a": np.zeros(2)}, None),
        ({"a": np.full(2, 1e-6)}, None),
        ({"a": np.ones(2)}, "'a' differs"),
        ({"a": np.zeros((1, 2))}, r"shape [2], got [1, 2]"),
        ({"b": np.zeros(2)}, "expected outputs ['a'], got ['b']"),
        ({"a": np.full(2, np.nan)}, "'a' differs"),
    ],
)
def test_answers_are_compared_by_name_shape_and_value(got, said) -> None:
    difference = inference.compare({"a": np.zeros(2)}, got)
    assert difference is None if said is None else said in difference


@pytest.mark.slow
def test_a_whole_run_measures_each_round_and_is_shown_and_recorded(tmp_path) -> None:
    effort = Effort(rounds=2, warmup_s=0.05, duration_s=0.1, promotions=1)
    order = session.Order((BASELINE,), (Scenario("mlp", 2, 2),), effort, is_ready_wanted=True)
    said, steps = [], []
    run = session.run(order, on_start=said.append, on_measured=lambda: steps.append(1))
    assert len(steps) == order.measurements == len(run.measurements) == 2
    assert "mlp 2x2, baseline" in said
    (summary,) = run.summaries
    assert summary.requests_per_s > 0
    assert summary.failed == 0
    assert run.readiness[0].answered_s >= run.readiness[0].listening_s > 0
    assert run.readiness[0].largest_rss_bytes > 2**20
    console = Console(record=True, width=80)
    report.show(console, run)
    shown = console.export_text()
    assert "mlp 2x2" in shown
    assert "…" not in shown
    report.write(run, tmp_path / "new" / "run.json")
    recorded = json.loads((tmp_path / "new" / "run.json").read_text())
    assert [each["round"] for each in recorded["measurements"]] == [0, 1]
    assert recorded["machine"]["cpus"] > 0


def test_reasons_of_failures_are_counted_over_the_rounds() -> None:
    rounds = [
        Measurement("s", "a", number, 1.0, None, None, None, 9, failures)
        for number, failures in enumerate(({"late": 2}, {}, {"late": 1, "lost": 1}))
    ]
    assert report.reasons(rounds) == ["a: 3 × late", "a: 1 × lost"]


@pytest.mark.parametrize(
    ("arguments", "scenarios", "servers"),
    [
        ([], [scenario.name for scenario in SUITES["tabular"]], ("baseline", "penstock")),
        (["--suite", "mlp"], [scenario.name for scenario in SUITES["mlp"]], ("baseline", "penstock")),
        (["--scenario", "tabular 1x1", "--scenario", "mlp 8x8"], ["tabular 1x1", "mlp 8x8"], ("baseline", "penstock")),
        (["--ci"], ["tabular 4x8"], ("baseline", "penstock")),
        (["--server", "baseline", "--server", "penstock-aio"], None, ("baseline", "penstock-aio")),
    ],
)
def test_options_become_an_order(arguments, scenarios, servers) -> None:
    options = command._parser().parse_args(arguments)
    bounds = [Floor("tabular 4x8", "penstock", "failed", at_most=0)] if options.ci else []
    order = command.order(options, bounds)
    assert order.servers == servers
    if scenarios is not None:
        assert [scenario.name for scenario in order.scenarios] == scenarios


@pytest.mark.parametrize("arguments", [["--scenario", "tabular 9x9"], ["--load-processes", "0"], ["--server", "x"]])
def test_wrong_options_are_refused(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(("ratio", "failed", "status"), [(5.5, 0, 0), (2.5, 0, 1), (5.5, 1, 1)])
def test_ci_holds_the_floors(ratio, failed, status, monkeypatch, capsys) -> None:
    def measured(scenario: str, server: str, rate: float) -> Measurement:
        return Measurement(scenario, server, 0, rate, 1e4 / rate, 1.0, 1.0, 9, {"x": failed} if failed else {})

    names = ("tabular 4x8", "tabular 8x8")
    rounds = [measured(name, *each) for name in names for each in (("baseline", 100), ("penstock", 100 * ratio))]
    run = session.Run(summaries=summarise(rounds, baseline="baseline"))
    monkeypatch.setattr(command, "_run", lambda order: run)
    assert command.main(["--ci"]) == status
    assert command.main([]) == 0
    assert "tabular 4x8" in capsys.readouterr().out


def test_what_cannot_be_measured_is_one_sentence_and_status_two(monkeypatch, capsys) -> None:
    def fail(order):
        raise inference.WrongAnswerError("penstock answers wrongly")

    monkeypatch.setattr(command, "_run", fail)
    assert command.main([]) == 2
    assert capsys.readouterr().err == "bench: penstock answers wrongly\n"
