"""Which servers are asked, and what their models answer; the servers themselves are started by hand."""

from pathlib import Path

import numpy as np
import pytest

import bench.servers.conforming
from bench.conformance.servers import PENSTOCK, WITHOUT
from bench.peers.peer import read
from bench.servers.conforming.answers import answer, ports
from penstock_conformance.contract import DATATYPES, FIXED, MODELS, PICK, SUM, VERSIONS, identity

PROGRAMS = Path(bench.servers.conforming.__file__).parent


def test_each_other_server_is_a_peer_and_has_a_program():
    peers = read()
    for name in WITHOUT.keys() - {PENSTOCK}:
        assert (PROGRAMS / f"{peers[name].module}.py").is_file()
    assert all(names <= MODELS.keys() for names in WITHOUT.values())


@pytest.mark.parametrize("name", [*map(identity, DATATYPES), FIXED])
def test_identities_give_what_they_get(name):
    values = np.ones((1, 2, 3), np.float32)
    found = answer(MODELS[name], "1", {"INPUT": values})
    assert list(found) == ["OUTPUT"]
    assert found["OUTPUT"] is values


def test_the_others_compute_what_the_contract_says():
    a, b = np.array([[5.0]], np.float32), np.array([[2.0]], np.float32)
    assert {name: values.item() for name, values in answer(MODELS[SUM], "1", {"A": a, "B": b}).items()} == {
        "SUM": 7.0,
        "DIFFERENCE": 3.0,
    }
    found = answer(MODELS[VERSIONS], "2", {"INPUT": a})["OUTPUT"]
    assert (found.item(), found.dtype) == (7.0, np.float32)
    assert answer(MODELS[PICK], "1", {"INPUT": np.array([3, 0])})["OUTPUT"].tolist() == [40, 10]
    with pytest.raises(IndexError):
        answer(MODELS[PICK], "1", {"INPUT": np.array([9])})


def test_ports_come_from_the_command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--grpc", "1", "--http", "2", "--metrics", "3"])
    found = ports()
    assert (found.grpc, found.http, found.metrics) == (1, 2, 3)
