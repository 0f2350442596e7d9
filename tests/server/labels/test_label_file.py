"""The file of labels."""

from pathlib import Path

import numpy as np
import pytest

from penstock_server.errors import LimitedError
from penstock_server.labels.label_file import KIND, LabelWriter
from penstock_server.labels.ring import Ring, rings_in


def test_labels_are_taken_all_or_none(tmp_path: Path) -> None:
    writer = LabelWriter(tmp_path, 0, places=4)
    writer.take(np.ones((3, 8), np.int64))
    with pytest.raises(LimitedError, match="labels come faster than they are joined") as caught:
        writer.take(np.ones((2, 8), np.int64))
    assert caught.value.retry_after_s > 0
    (path,) = rings_in(tmp_path, KIND)
    ring = Ring(path)
    assert (len(ring.read(0, 4)), ring.lost) == (3, 2)
    ring.release(3)
    writer.take(np.ones((4, 8), np.int64))
    writer.close()
