from itertools import count

import numpy as np

from bench.servers.baselines.in_process import limit


def test_a_limit_counts_rows_of_whole_batches_by_the_clock() -> None:
    ticks = count()
    runs = []
    batches = [np.zeros((8, 2), np.float32), np.ones((8, 2), np.float32)]
    found = limit(lambda batch: runs.append(batch[0, 0]), batches, seconds=5, clock=lambda: float(next(ticks)))
    assert (found.rows, found.rows_per_s, found.batch_us) == (8, 8.0, 1e6)
    assert runs == [0, 1, 0, 1, 0, 1, 0]
