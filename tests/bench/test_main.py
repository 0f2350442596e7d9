import pytest

from bench import __main__ as command
from bench import inference
from bench.results import Measurement, summarise
from bench.scenarios import SUITES
from bench.servers.measured import ServerThere
from bench.session import RunResult
from bench.thresholds import Threshold


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
def test_options_become_a_run_spec(arguments, scenarios, servers) -> None:
    options = command._parser().parse_args(arguments)
    bounds = [Threshold("tabular 4x8", "penstock", "failed", at_most=0)] if options.ci else []
    spec = command.run_spec(options, bounds)
    assert spec.servers == servers
    if scenarios is not None:
        assert [scenario.name for scenario in spec.scenarios] == scenarios


def test_a_server_that_runs_already_is_given_by_its_address() -> None:
    options = command._parser().parse_args(["--there", "triton=127.0.0.1:8001@77", "--there", "other=[::1]:9"])
    there = command.run_spec(options, []).there
    assert there == {"triton": ServerThere("127.0.0.1:8001", 77), "other": ServerThere("[::1]:9")}


def test_the_models_of_a_suite_are_written_for_such_servers(tmp_path) -> None:
    assert command.main(["--suite", "mlp", "--write-models", str(tmp_path)]) == 0
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.onnx")] == ["mlp/1/model.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scenario", "tabular 9x9"],
        ["--load-processes", "0"],
        ["--server", "x"],
        ["--there", "triton"],
        ["--there", "triton=10.0.0.1:8001"],
        ["--there", "triton=127.0.0.1:8001@x"],
    ],
)
def test_wrong_options_are_refused(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(("ratio", "failed", "status"), [(40.5, 0, 0), (2.5, 0, 1), (40.5, 1, 1)])
def test_ci_holds_the_thresholds(ratio, failed, status, monkeypatch, capsys) -> None:
    def measured(scenario: str, server: str, rate: float) -> Measurement:
        return Measurement(scenario, server, 0, rate, 1e4 / rate, 1.0, 1.0, 9, {"x": failed} if failed else {})

    names = ("tabular 4x8", "tabular 8x8")
    rounds = [measured(name, *each) for name in names for each in (("baseline", 100), ("penstock", 100 * ratio))]
    run = RunResult(summaries=summarise(rounds, baseline="baseline"))
    monkeypatch.setattr(command, "_run", lambda spec: run)
    assert command.main(["--ci"]) == status
    assert command.main([]) == 0
    assert "tabular 4x8" in capsys.readouterr().out


def test_what_cannot_be_measured_is_one_sentence_and_status_two(monkeypatch, capsys) -> None:
    def fail(spec):
        raise inference.WrongAnswerError("penstock answers wrongly")

    monkeypatch.setattr(command, "_run", fail)
    assert command.main([]) == 2
    assert capsys.readouterr().err == "bench: penstock answers wrongly\n"
