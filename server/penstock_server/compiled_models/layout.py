"""How a model's program is laid out in memory, for those who write it and for the kernels that run it.

A program is one block of 64-bit words: a header, instructions, and tables. A table's position counts elements of its own
type from the beginning of the block. Values are in scratch memory, column by column: those of `LANES` rows side by side, or
of one row alone. A value's position there counts bytes.
"""

from typing import Final

LANES: Final = 16
"""Rows that are computed side by side."""
ALONE_ROWS: Final = 2
"""Up to this many rows are computed one by one: a block of lanes costs as much as three of them."""
LANE_BITS: Final = 4
TOGETHER: Final = 6
"""Trees that one row walks through side by side."""
MAX_OUTPUTS: Final = 3
ARRAY_DATA: Final = 2
"""The word of an array object of numpy that says where its elements are (`PyArrayObject_fields` in numpy's headers)."""
NONE: Final = -1
"""The position of a table that is not there."""

# What a call is told: the addresses of the program and of scratch memory.
PROGRAM, SCRATCH = range(2)
HEAD_WORDS: Final = 2

# The header.
WORDS, INSTRUCTIONS, INPUT_WIDTH = range(3)
HEADER_WORDS: Final = 8

INSTRUCTION_WORDS: Final = 32
OPERATION, KIND, TO, FROM, WIDTH = range(5)
"""Of every instruction: what it does, the type of its elements, where it writes to and reads from, and how many columns."""
_FIRST: Final = 5

SINGLE, DOUBLE, INTEGER = range(3)
"""What a value's elements are: float32, float64, int64."""

(
    LOAD,
    STORE,
    TREES,
    CLASSES_OF_TWO,
    SCORES,
    LARGEST,
    LOOK_UP,
    CONVERT,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    SPREAD,
    COPY,
    SOFTMAX,
    LOGISTIC,
    POSITIVE,
    NORMALISE,
    PRODUCT,
) = range(19)

# LOAD: which columns of the input, a table of INTEGER.
COLUMNS: Final = _FIRST
# STORE: which output.
OUTPUT: Final = _FIRST

# TREES: `WIDTH` sums. Tables of nodes for one row and for lanes, and scratch memory for places.
(
    TREE_COUNT,
    TREE_TABLE,
    WALK_COUNT,
    WALK_TABLE,
    HAS_MISSING,
    NODES,
    NODE_FLAGS,
    NODE_LEAVES,
    LANE_FEATURES,
    LANE_BOUNDS,
    LANE_FLAGS,
    LANE_MASKS,
    VALUES,
    PLACES,
    BASES,
    DIVISOR,
) = range(_FIRST, _FIRST + 16)
"""Each sum is divided by the number at `DIVISOR`, and then gets its base, where there are such tables. Without a table of
walks all trees are dense."""

# A tree's entry in its table.
SHAPE, NODE, LANE_NODE, LANE_COUNT, FIRST_VALUE, TREE_OUTPUT = range(6)
"""`LANE_COUNT` counts the comparisons, or is the depth of a tree that is walked. `TREE_OUTPUT` is the sum that all leaves
belong to, or NONE where each leaf has a value for every sum."""
TREE_WORDS: Final = 8
DENSE, MASKED_32, MASKED_64, WALKED = range(4)
"""How lanes go through a tree: all comparisons of `DENSE_DEPTH` levels, a bit per leaf, of up to 32 or 64, or node by node."""
DENSE_DEPTH: Final = 3

# A walk of one row, in an order in which those of like depth are together: the root, the tree, the depth of the deepest of
# `TOGETHER`.
WALK_ROOT, WALK_TREE, WALK_DEPTH = range(3)
WALK_WORDS: Final = 4
NODE_SIZE: Final = 4
"""A node for one row is so many numbers of the trees' type: its column, left and right as int32, and last its bound."""
NODE_FEATURE, NODE_LEFT, NODE_RIGHT, NODE_BOUND = range(4)

# SCORES and CLASSES_OF_TWO: what becomes of scores.
TRANSFORM: Final = _FIRST
PLAIN, LOGISTICS, SOFTMAXES, SOFTMAXES_BUT_ZEROS = range(4)
# CLASSES_OF_TWO: probabilities, of float32, go to `TO`, and the place of the class to `LABEL`. `BASES` is a table of the two
# bases and a 1.
LABEL, HAS_SECOND, BASE_COUNT, IS_BINARY, IS_POSITIVE = range(_FIRST + 1, _FIRST + 6)

# LARGEST: whether the last of equal ones counts.
IS_LAST: Final = _FIRST
# LOOK_UP: a table of INTEGER, and its size.
TABLE, TABLE_SIZE = range(_FIRST, _FIRST + 2)
# CONVERT: the type of what it reads.
FROM_KIND: Final = _FIRST
# ADD and the like: the other value, and for each of the two 0 if it has one column for all, else 1.
OTHER, FROM_STEP, OTHER_STEP = range(_FIRST, _FIRST + 3)
# SPREAD reads a table.
# COPY: the column from which it reads, and the one to which it writes.
FROM_COLUMN, TO_COLUMN = range(_FIRST, _FIRST + 2)
# SOFTMAX: the lanes of its sums, and where the lowest number is that it takes.
SUM_LANES, LOWEST = range(_FIRST, _FIRST + 2)
# NORMALISE.
NORM: Final = _FIRST
MAXIMUM, ABSOLUTE, SQUARE = range(3)
# PRODUCT: `TERMS` numbers with weights [terms, columns], and what is added. `BLOCK` terms are summed before they are added.
TERMS, WEIGHTS, ADDENDS, BLOCK, IS_TRANSPOSED_ALONE = range(_FIRST, _FIRST + 5)

PARTIAL_BYTES: Final = 64
"""Scratch memory begins with room for partial sums."""
