import sys
from pathlib import Path

from bench.servers.peers import command_line
from tests.bench.peers.a_peer import PEER


def test_a_program_reads_the_command_line_of_its_peer(monkeypatch, capsys) -> None:
    command = PEER.command(Path("python"), Path("/m.onnx"), model="tabular", port=7, folder=Path("/run"), env={})
    monkeypatch.setattr(sys, "argv", command[command.index("-m") + 1 :])
    found = command_line.read_arguments("http")
    assert (found.model, found.file, found.port) == ("tabular", Path("/m.onnx"), 7)
    assert found.settings == PEER.settings
    assert capsys.readouterr().out == "http 127.0.0.1:7\n"
