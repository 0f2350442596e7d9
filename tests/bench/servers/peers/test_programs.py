import ast
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[4] / "bench" / "servers" / "peers"
ALLOWED = {
    "bench.servers.peers",
    "bench.servers.peers.command_line",
    "bench.servers.onnx_session",
    "penstock",
    "penstock.names",
    "penstock.tensors",
}


@pytest.mark.parametrize(
    "file", [*sorted(PROGRAMS.glob("*.py")), PROGRAMS.parent / "onnx_session.py"], ids=lambda file: file.stem
)
def test_a_program_imports_only_what_every_peers_environment_has(file) -> None:
    """It runs where neither Penstock's server nor the bench's libraries are installed."""
    nodes = ast.walk(ast.parse(file.read_text()))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    ours = {"bench", "penstock", "penstock_server", "penstock_tools", "penstock_client"}
    assert {each for each in modules if each.partition(".")[0] in ours} <= ALLOWED
