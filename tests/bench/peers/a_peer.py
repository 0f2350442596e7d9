"""A peer for tests: nothing of it is installed."""

from bench.peers.peer import Peer

PEER = Peer(
    name="other",
    module="other",
    packages=("other==1.2", "numpy==2.0"),
    protocol="json",
    settings={"batch": {"size": 8}},
    env={"QUIET": "1"},
    processes="one process",
    documentation=("https://example.org/",),
    why="it is there",
)
