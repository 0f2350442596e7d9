"""The pure parts of the bench over peers: nothing is installed and no peer is started here."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from bench.peers import __main__ as command
from bench.peers import environments, running, table, wires
from bench.peers import peer as catalogue
from bench.peers.peer import Peer
from bench.peers.running import Finding
from bench.results import Measurement, summarise
from bench.scenarios import QUICK
from bench.servers.measured import BASELINE
from bench.servers.peers import shared
from bench.servers.roles import ServerError
from bench.session import Run
from penstock import inference_pb2 as pb

PEERS = catalogue.read()
SERVERS = Path(catalogue.__file__).parents[1] / "servers" / "peers"
PEER = Peer(
    name="other",
    module="other",
    packages=("other==1.2", "numpy==2.0"),
    wire="json",
    settings={"batch": {"size": 8}},
    env={"QUIET": "1"},
    processes="one process",
    documentation=("https://example.org/",),
    why="it is there",
)
ENTRY = """
[[peer]]
name = "other"
module = "other"
wire = "{wire}"
packages = [{packages}]
processes = "one"
documentation = ["https://example.org/"]
why = "it is there"
"""


@pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))
def test_every_peer_is_pinned_explained_and_has_its_server(peer) -> None:
    assert (SERVERS / f"{peer.module}.py").is_file()
    assert {"onnxruntime", "numpy"} <= {package.partition("==")[0] for package in peer.packages}
    assert all(page.startswith("https://") for page in peer.documentation)
    assert peer.documentation
    assert min(len(peer.why), len(peer.processes)) > 10


@pytest.mark.parametrize("file", sorted(SERVERS.glob("*.py")), ids=lambda file: file.stem)
def test_a_server_needs_nothing_of_the_bench_but_what_is_shared(file) -> None:
    """It runs where neither Penstock's server nor the bench's libraries are."""
    allowed = {"bench.servers.peers.shared", "bench.servers.peers", "penstock", "penstock.tensors"}
    nodes = ast.walk(ast.parse(file.read_text()))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    assert {each for each in modules if each.partition(".")[0] in {"bench", "penstock", "penstock_server"}} <= allowed


@pytest.mark.parametrize(
    ("wire", "packages", "words"),
    [
        ("json", "", "needs its packages"),
        ("json", "'other'", "NAME==VERSION, got 'other'"),
        ("json", "'other>=1'", "NAME==VERSION"),
        ("json", "'other=='", "NAME==VERSION"),
        ("soap", "'other==1'", "one of grpc, .* got 'soap'"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(tmp_path, wire, packages, words) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(ENTRY.format(wire=wire, packages=packages))
    with pytest.raises(ValueError, match=words):
        catalogue.read(file)


@pytest.mark.parametrize("text", ["", "[[peer]]\nname = 'x'\n", "[[peer]\n"])
def test_a_malformed_file_is_one_clear_error(tmp_path, text) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"peers\.toml is malformed"):
        catalogue.read(file)


def test_a_server_is_told_model_port_and_settings() -> None:
    found = PEER.command(
        Path("/env/python"), Path("/m.onnx"), model="tabular", port=7, folder=Path("/run"), env={"MARK": "m"}
    )
    assert found[:5] == ["env", "--chdir=/run", "QUIET=1", "MARK=m", "/env/python"]
    assert found[5:8] == ["-m", "bench.servers.peers.other", "tabular=/m.onnx"]
    assert found[8:10] == ["--port", "7"]
    assert json.loads(found[-1]) == PEER.settings


def test_the_shared_part_understands_what_it_is_told(monkeypatch, capsys) -> None:
    told = PEER.command(Path("python"), Path("/m.onnx"), model="tabular", port=7, folder=Path("/run"), env={})
    monkeypatch.setattr(sys, "argv", told[told.index("-m") + 1 :])
    found = shared.orders("http")
    assert (found.model, found.file, found.port) == ("tabular", Path("/m.onnx"), 7)
    assert found.settings == PEER.settings
    assert capsys.readouterr().out == "http 127.0.0.1:7\n"


def test_the_contestant_sees_this_checkout_and_carries_the_mark() -> None:
    started = running.contestant(PEER, Path("/run"), "mark")
    found = started.command(Path("/m"), {"tabular": Path("/m.onnx")})
    assert {"--chdir=/run", "HOME=/run", "TMPDIR=/run"} <= set(found)
    assert f"{running.MARK}=mark" in found
    assert any(each.startswith("PYTHONPATH=") and each.endswith("protos") for each in found)
    assert started.wire is wires.WIRES["json"]
    assert running.order(PEER, QUICK).servers == ("other", "penstock", BASELINE)


def test_an_environment_lies_in_the_cache_and_holds_the_pins(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make, install = environments.commands(PEER)
    folder = str(tmp_path / "penstock" / "bench-peers" / "other")
    assert make[-3:] == ["--python", sys.executable, folder]
    assert install[-2:] == ["other==1.2", "numpy==2.0"]
    assert not environments.is_fresh(PEER)


def test_an_environment_is_kept_until_its_pins_change(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran = []

    def install(order):
        ran.append(order)
        environments.folder(PEER).mkdir(parents=True, exist_ok=True)
        return ""

    monkeypatch.setattr(environments, "_run", install)
    environments.make(PEER)
    environments.make(PEER)
    assert len(ran) == 2
    monkeypatch.setattr(environments, "commands", lambda _: [["uv"]])
    (environments.folder(PEER) / environments._STAMP).write_text("older pins")
    environments.make(PEER)
    assert ran[2:] == [["uv"]]
    environments.remove(PEER)
    assert not environments.folder(PEER).exists()


def test_a_failed_installation_quotes_the_installer() -> None:
    with pytest.raises(environments.InstallError, match="python -c failed: no such version"):
        environments._run([sys.executable, "-c", "raise SystemExit('no such version')"])
    with pytest.raises(environments.InstallError, match="nowhere"):
        environments._run(["/nowhere/uv", "venv"])


@pytest.mark.parametrize(
    "error", [environments.InstallError("no wheel"), ServerError("it ended"), TimeoutError("late")]
)
def test_a_peer_that_fails_is_a_finding_with_a_reason(monkeypatch, error) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(environments, "is_fresh", lambda _: True)
    monkeypatch.setattr(environments, "make", fail)
    assert running.find(PEER, QUICK) == Finding(PEER, failure=str(error))


def test_what_carries_the_mark_is_found_and_ended() -> None:
    with running._marked() as mark:
        script = "import time; print(flush=True); time.sleep(600)"
        environment = {running.MARK: mark}
        with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert [each.pid for each in running.survivors(mark)] == [process.pid]
            assert running.survivors("another") == []
            process.kill()
    with subprocess.Popen([sys.executable, "-c", script], env={running.MARK: mark}) as process:
        psutil.Process(process.pid).environ()
        process.kill()
    assert running.survivors(mark) == []


def measured(server: str, rate: float) -> Measurement:
    return Measurement("tabular 8x8", server, 0, rate, 10.0, 1.0, 2.0, 100, {})


def found() -> Finding:
    rounds = [measured("other", 100.0), measured("penstock", 450.0), measured(BASELINE, 200.0)]
    return Finding(PEER, Run(measurements=rounds, summaries=summarise(rounds, baseline="other")), ("other==1.2",))


def test_the_table_has_a_failed_peer_among_the_others() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table.show(console, [Finding(PEER, failure="\n no wheel for this platform\nmore"), found()])
    text = console.export_text()
    assert "other 1.2 was not measured: no wheel for this platform" in text
    assert re.search(r"penstock +450 +4\.50", text)
    assert '{"batch": {"size": 8}}' in text.replace("\n", "")
    assert max(map(len, text.splitlines())) <= 80


def test_a_long_reason_is_cut_on_the_line_and_kept_in_the_record() -> None:
    finding = Finding(PEER, failure="x" * 1000)
    assert len(table.reason(finding)) < 200
    assert table.reason(Finding(PEER)) == "no reason was given"
    assert table.record([finding])["peers"][0]["failure"] == "x" * 1000


def test_the_record_is_json_with_versions_settings_machine_and_commit() -> None:
    kept = json.loads(json.dumps(table.record([found(), Finding(PEER, failure="no")])))
    assert {"machine", "commit", "peers"} == kept.keys()
    first, second = kept["peers"]
    assert (first["settings"], first["installed"], first["failure"]) == (PEER.settings, ["other==1.2"], None)
    assert len(first["summaries"]) == 3
    assert "summaries" not in second


def test_forms_that_differ_are_read_as_the_same_outputs() -> None:
    response = pb.ModelInferResponse()
    for name, array in (("label", np.ones((2, 1), np.int64)), ("p", np.ones((2, 3), np.float32))):
        datatype = {"label": "INT64", "p": "FP32"}[name]
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    assert {name: array.shape for name, array in wires.columns(response).items()} == {"label": (2,), "p": (2, 3)}
    rows = wires.RowsWire().read([{"label": 1, "p": [0.5, 0.5]}, {"label": 0, "p": [0.1, 0.9]}])
    assert {name: array.shape for name, array in rows.items()} == {"label": (2,), "p": (2, 2)}


def test_the_command_names_the_peers_it_knows(capsys) -> None:
    assert command.main(["mlserver", "nobody"]) == 2
    assert "no peer 'nobody'; there are mlserver" in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    assert "bench-peers" in capsys.readouterr().out
