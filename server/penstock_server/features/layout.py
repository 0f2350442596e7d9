"""How a program lies in memory: the one thing that `program`, which writes it, and `kernels`, which reads it, agree on.

A program is one block of 64-bit words, addressed by word: a header, a record for each column, then what the records
point to. Real parameters are the bits of a float64; text is little-endian words, filled up with zeros. Positions are
words from the block's start. Only integers stand here: the kernels see them as constants.
"""

from typing import Final

# The header.
WORDS: Final = 0
COLUMNS: Final = 1
NUMBERS: Final = 2
STRINGS: Final = 3
WIDTH: Final = 4
CELLS: Final = 5
HEADER_WORDS: Final = 6

# A column's record. SOURCE counts among the number columns; DATA and CELL_DATA are positions.
KIND: Final = 0
SOURCE: Final = 1
TARGET: Final = 2
DATA: Final = 3
COUNT: Final = 4
CELL_DATA: Final = 5
CELL_COUNT: Final = 6
COLUMN_WORDS: Final = 7

# Kinds. A number's data are COUNT steps; its cell data are CELL_COUNT edges.
NUMBER: Final = 0
# COUNT categories in the table at DATA; the cell data are the cell of each category's code.
ORDINAL: Final = 1
ONE_HOT: Final = 2

# A step: its operation, the number of its parameters, and the parameters.
STEP_WORDS: Final = 2
FILL: Final = 0
CLIP: Final = 1
LOG1P: Final = 2
STANDARDISE: Final = 3
BUCKET: Final = 4

# A table of categories: a mask and the longest category's length, then mask + 1 slots, a power of two and at least four
# times the categories, so that a search always ends at a free one. A free slot has the code -1.
TABLE_MASK: Final = 0
TABLE_LONGEST: Final = 1
TABLE_WORDS: Final = 2
SLOT_CODE: Final = 0
SLOT_TEXT: Final = 1
SLOT_LENGTH_BYTES: Final = 2
SLOT_WORDS: Final = 3

# The hash of a string: for each word of it, xor, multiply, and fold the high half, which knows most, on the low one.
HASH_START: Final = 0xCBF29CE484222325
HASH_PRIME: Final = 0x9E3779B97F4A7C15
WORD_BYTES: Final = 8

# The last cells of every row of counts, from its end.
MISSING_FROM_END: Final = 3
INFINITE_FROM_END: Final = 2
UNSEEN_FROM_END: Final = 1
EXTRA_CELLS: Final = 3

# What each raw string costs before its bytes: a little-endian length.
LENGTH_BYTES: Final = 4

# What `run` answers.
DONE: Final = 0
TORN: Final = 1
