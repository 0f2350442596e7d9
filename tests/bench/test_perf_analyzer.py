import subprocess
from pathlib import Path

import pytest

from bench import perf_analyzer
from bench.peers import environments
from bench.perf_analyzer import ENVIRONMENT, PerfAnalyzerError

RESULTS = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,\
Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency,Avg latency,request/response,response wait
8,8843.41,3,714,79,0,6,1,1,687,1059,1228,3942,805,4,794
"""
OUTPUT = """
Request concurrency: 8
  Client:
    Request count: 36397
  Server:
    Inference count: 145636
    Execution count: 6854
    Successful request count: 36409
"""


def test_results_are_read() -> None:
    found = perf_analyzer.read(RESULTS, OUTPUT)
    assert (found.requests_per_s, found.latency_us, found.p50_us, found.p99_us) == (8843.41, 805, 687, 3942)
    assert (found.queue_us, found.input_us, found.infer_us, found.output_us, found.server_us) == (79, 0, 6, 1, 86)
    assert (found.network_us, found.rows, found.batches, found.requests) == (714, 145636, 6854, 36409)


@pytest.mark.parametrize(
    ("results", "output"),
    [
        ("", OUTPUT),
        (RESULTS, ""),
        (RESULTS.replace("8843.41", "fast"), OUTPUT),
        (RESULTS + "16,1\n", OUTPUT),
        (RESULTS.replace("Server Queue", "Queue"), OUTPUT),
    ],
)
def test_results_that_cannot_be_read_are_refused(results, output) -> None:
    with pytest.raises(PerfAnalyzerError, match="cannot be read"):
        perf_analyzer.read(results, output)


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The command lines that were run, with what they left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines = []

    def run(line, **options):
        lines.append((line, options))
        if "-f" in line:
            Path(line[line.index("-f") + 1]).write_text(RESULTS)
        elif line[0] == "apt-get":
            (Path(options["cwd"]) / "libb64-0d_1.2.deb").touch()
        else:
            (Path(options["cwd"]) / "libb64.so.0d").write_text("a library")
        return subprocess.CompletedProcess(line, 0, stdout=OUTPUT, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return lines


def test_it_runs_with_its_libraries(ran) -> None:
    found = perf_analyzer.measure("127.0.0.1:7", "m", "-b", "4", concurrency=3, window_s=0.5)
    assert found.requests == 36409
    ((line, options),) = ran
    assert line[0] == str(ENVIRONMENT.program)
    assert line[line.index("--measurement-interval") + 1] == "500"
    assert line[-2:] == ["-b", "4"]
    assert str(environments.folder(ENVIRONMENT) / "lib") in options["env"]["LD_LIBRARY_PATH"].split(":")


def test_a_run_that_fails_quotes_it(ran, monkeypatch) -> None:
    def fail(line, **_):
        return subprocess.CompletedProcess(line, 99, stdout="", stderr="failed to get model metadata")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(PerfAnalyzerError, match="failed to get model metadata"):
        perf_analyzer.measure("127.0.0.1:7", "m")


def test_the_library_that_only_debian_has_is_fetched_once(ran, monkeypatch) -> None:
    lib = environments.folder(ENVIRONMENT) / "lib"
    monkeypatch.setattr(environments, "make", lambda _: lib.mkdir(parents=True, exist_ok=True))
    perf_analyzer.make()
    perf_analyzer.make()
    assert [line[:2] for line, _ in ran] == [["apt-get", "download"], ["dpkg-deb", "-x"]]
    assert (lib / "libb64.so.0d").read_text() == "a library"


def test_where_there_is_no_debian_it_cannot_be_made(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(environments, "make", lambda _: None)
    with pytest.raises(environments.InstallError, match="libb64-0d cannot be had from Debian"):
        perf_analyzer.make()
