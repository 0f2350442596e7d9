"""A pipeline that misbehaves for marked rows, with what a server knows of it."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from penstock.tensors import join_bytes
from penstock_server.python.description import PICKLE, Column, Description, Output

CRASH, LOOP, EAT, REFUSE, FAIL, WRITE, CALL, ENVIRONMENT, STOP, EXIT, FLOOD, BABBLE = range(-1, -13, -1)


class Marked:
    """Adds one to each number, and does its worst for the rows that are marked."""

    def predict(self, rows):
        for value in rows["x"]:
            _do(value)
        return rows["x"].to_numpy() + 1


def _do(value):  # noqa: C901 - each case is one line
    match value:
        case -1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case -2:
            while True:
                pass
        case -3:
            np.ones(4 << 27).sum()
        case -4:
            raise ValueError("column 'x' is refused\nwith a dump")
        case -5:
            raise RuntimeError("secret")
        case -6:
            Path(os.environ["HOME"], "own").write_text("may be written")
            Path("/tmp/penstock-python-test").write_text("may not be written")
        case -7:
            socket.create_connection(("127.0.0.1", int(os.environ["LANG"].partition(".")[2] or 9)), 1)
        case -8:
            raise ValueError(" ".join(["writes no bytecode" if sys.dont_write_bytecode else "", *sorted(os.environ)]))
        case -9:
            os._exit(3)
        case -10:
            sys.exit(4)
        case -11 | -12:
            # What only hostile code does: it finds the socket, and writes to it.
            said = b"\xff\xff\xff\xff" if value == -11 else b"\x01\x00\x00\x00\xc1"
            for descriptor in range(3, 1024):  # it has the number that it had in the process of the tests
                try:
                    socket.socket(fileno=os.dup(descriptor)).sendall(said)
                except OSError:
                    continue
            time.sleep(60)


def described(**changes):
    parts = {
        "file": PICKLE,
        "container": "frame",
        "columns": (Column("x"), Column("kind", "text", "object")),
        "outputs": (Output("prediction", "FP64", "predict", 1),),
        "reason": "its class has no rule",
        "requirements": {"scikit-learn": "1.8.0"},
    }
    return Description(**(parts | changes))


def blocks_of(*numbers):
    return [np.array(numbers, np.float64).tobytes(), join_bytes(["a"] * len(numbers))]


@pytest.fixture(scope="session")
def content():
    """The marked pipeline in a file; its class is in it by value."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(Marked())
    finally:
        cloudpickle.unregister_pickle_by_value(module)
