"""What the fuzzer has found, and what people feared, is played again: in process and over a socket."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.fuzz import corpus
from bench.fuzz.server import Server
from tests.server.transport.http2_peer import Peer

CORPUS: Final = tuple(corpus.read(Path(__file__).parent / "fuzz_corpus.txt"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    opened.close()


@pytest.mark.parametrize(("why", "pieces"), CORPUS, ids=[why for why, _ in CORPUS])
def test_it_is_survived_in_process(server: Server, why: str, pieces: list[bytes]) -> None:
    for seed in range(20):
        server.play(pieces, random.Random(seed))
    server.play([b"".join(pieces)], random.Random(0))
    server.play([bytes((byte,)) for byte in b"".join(pieces)[:2000]], random.Random(0))
    server.check_other()
    server.check_tables()


@pytest.mark.parametrize(("why", "pieces"), CORPUS, ids=[why for why, _ in CORPUS])
def test_it_is_survived_over_a_socket(native_address: str, peer: Peer, why: str, pieces: list[bytes]) -> None:
    for _ in range(3):
        with Peer(native_address, b"") as hostile:
            for piece in pieces:
                hostile.send(piece)
                hostile.read_what_came()
    assert peer.is_alive()
