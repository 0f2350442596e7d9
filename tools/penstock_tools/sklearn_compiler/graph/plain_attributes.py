"""Numpy's scalars become Python's before skl2onnx makes an ONNX node of them.

skl2onnx 1.20 writes `numpy.bool_` into attributes of integers, for HistGradientBoosting among others. Up to protobuf 6
that passes; protobuf 7, which most installations resolve, refuses it with a TypeError. For the time of one conversion the
name `make_node` in skl2onnx's container is another function; nothing else is replaced, onnx itself is untouched.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

_ONE_AT_A_TIME: Final = threading.Lock()


@contextmanager
def plain_attributes() -> Iterator[None]:
    """What skl2onnx converts inside gets attributes of Python's own types."""
    # Private, because skl2onnx has no other door through which every node passes.
    from skl2onnx.common import _container as container

    with _ONE_AT_A_TIME:
        make_node = container.make_node

        def make_plain_node(*args: Any, **attributes: Any) -> Any:
            return make_node(*args, **{name: plain(value) for name, value in attributes.items()})

        container.make_node = make_plain_node
        try:
            yield
        finally:
            container.make_node = make_node


def plain(value: Any) -> Any:
    """The value with Python's scalars in place of numpy's, in lists and arrays too; a boolean becomes an integer.

    An attribute of ONNX has no booleans: 0 and 1 stand for them.
    """
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return int(value) if isinstance(value, bool) else value
