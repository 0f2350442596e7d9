"""Boards in files of their own."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from penstock_server.observe.board import Board, BoardShape, create_board

PLAIN = BoardShape()


@pytest.fixture
def new_board(tmp_path: Path) -> Callable[..., Board]:
    numbers = count()
    return lambda shape=PLAIN: create_board(tmp_path / f"board-{next(numbers)}", shape)
