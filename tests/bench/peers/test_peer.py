import json
from pathlib import Path

import numpy as np
import pytest

from bench.peers.peer import JsonRowsProtocol, RawProtocol, flat_columns, read
from penstock import inference_pb2 as pb
from tests.bench.peers.a_peer import PEER

PEERS = read()
PROGRAMS = Path(__file__).parents[3] / "bench" / "servers" / "peers"
ENTRY = """
[[peer]]
name = "other"
module = "other"
protocol = "{protocol}"
packages = [{packages}]
processes = "one"
documentation = ["https://example.org/"]
why = "it is there"
"""


@pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))
def test_every_peer_is_pinned_explained_and_has_its_program(peer) -> None:
    assert (PROGRAMS / f"{peer.module}.py").is_file()
    assert {"onnxruntime", "numpy"} <= {package.partition("==")[0] for package in peer.packages}
    assert all(page.startswith("https://") for page in peer.documentation)
    assert peer.documentation
    assert min(len(peer.why), len(peer.processes)) > 10


@pytest.mark.parametrize(
    ("protocol", "packages", "words"),
    [
        ("json", "", "needs its packages"),
        ("json", "'other'", "NAME==VERSION, got 'other'"),
        ("json", "'other>=1'", "NAME==VERSION"),
        ("json", "'other=='", "NAME==VERSION"),
        ("soap", "'other==1'", "one of grpc, .* got 'soap'"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(tmp_path, protocol, packages, words) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(ENTRY.format(protocol=protocol, packages=packages))
    with pytest.raises(ValueError, match=words):
        read(file)


@pytest.mark.parametrize("text", ["", "[[peer]]\nname = 'x'\n", "[[peer]\n"])
def test_a_malformed_file_is_one_clear_error(tmp_path, text) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"peers\.toml is malformed"):
        read(file)


def test_the_command_line_has_model_port_and_settings() -> None:
    found = PEER.command(
        Path("/env/python"), Path("/m.onnx"), model="tabular", port=7, folder=Path("/run"), env={"MARK": "m"}
    )
    assert found[:5] == ["env", "--chdir=/run", "QUIET=1", "MARK=m", "/env/python"]
    assert found[5:8] == ["-m", "bench.servers.peers.other", "tabular=/m.onnx"]
    assert found[8:10] == ["--port", "7"]
    assert json.loads(found[-1]) == PEER.settings


def test_forms_that_differ_are_read_as_the_same_outputs() -> None:
    response = pb.ModelInferResponse()
    for name, array in (("label", np.ones((2, 1), np.int64)), ("p", np.ones((2, 3), np.float32))):
        datatype = {"label": "INT64", "p": "FP32"}[name]
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    assert {name: array.shape for name, array in flat_columns(response).items()} == {"label": (2,), "p": (2, 3)}
    rows = JsonRowsProtocol().read([{"label": 1, "p": [0.5, 0.5]}, {"label": 0, "p": [0.1, 0.9]}])
    assert {name: array.shape for name, array in rows.items()} == {"label": (2,), "p": (2, 2)}


def test_raw_bytes_are_a_label_and_its_scores() -> None:
    protocol = RawProtocol()
    body = np.int64(3).tobytes() + np.array([0.25, 0.75], np.float32).tobytes()
    found = protocol.read(protocol.parse(body))
    assert found["label"].tolist() == [3]
    assert found["probabilities"].tolist() == [[0.25, 0.75]]
    assert {len(message) for message in protocol.messages("tabular", rows=1, copies=1)} == {30 * 4}
    with pytest.raises(ValueError, match="one row"):
        protocol.messages("tabular", rows=2, copies=1)
