"""A version that doubles a number and refuses negative ones: what a stream needs of one, without a model."""

import pyarrow as pa
import pyarrow.compute as pc

from penstock_tools.batch.scoring import BadRow, Scored
from penstock_tools.stream.codec import Shape
from penstock_tools.stream.json_rows import JsonRows

COLUMNS = pa.schema([("x", pa.float64())])
ANSWERS = pa.schema([("double", pa.float64())])


class Toy:
    def __init__(self, version="1", codec=None, keep=("id",)):
        self.key = ("toy", version)
        self.codec = codec or JsonRows(Shape(COLUMNS, ANSWERS, keep, *self.key))
        self.batches = []

    def score(self, rows):
        self.batches.append(rows.num_rows)
        x = rows.column("x")
        is_good = pc.fill_null(pc.greater_equal(x, 0), True)
        good = rows.filter(is_good).column("x")
        bad = tuple(
            BadRow(at, "x", f"is {x[at].as_py():g}, expected 0 or more")
            for at, one in enumerate(is_good.to_pylist())
            if not one
        )
        return Scored(pa.RecordBatch.from_arrays([pc.multiply(good, 2.0)], schema=ANSWERS), bad)

    def count(self, part, **times):
        pass

    def close(self):
        pass
