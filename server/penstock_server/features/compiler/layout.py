"""The memory layout of a program, which the compiler writes and the kernels read.

A program is one block of 64-bit words, addressed by word: a header, data, then instructions. An instruction is its
operation, the position after it, and entries that are all alike for one operation: one for each column that it makes.
Registers are numbered blocks of float64, one for each row of a block of rows. Real numbers are the bits of a float64;
text is little-endian words, filled up with zeros. This module holds only integers: the kernels see them as constants.
"""

from typing import Final

# The header. CODE is the position of the first instruction; ZEROED whether outputs must be zero before they are written; STATE
# the words of scratch between the cursors and the text, COUNTED the most columns that an encoder of grams counts in.
WORDS: Final = 0
NUMBERS: Final = 1
STRINGS: Final = 2
WIDTH: Final = 3
COLUMNS: Final = 4
CELLS: Final = 5
REGISTERS: Final = 6
BLOCK_ROWS: Final = 7
CODE: Final = 8
IS_DOUBLE: Final = 9
ZEROED: Final = 10
TIMES: Final = 11
STATE: Final = 12
COUNTED: Final = 13
HEADER_WORDS: Final = 14

# An instruction: its operation, then these words.
NEXT: Final = 1
ENTRIES: Final = 2

# Operations, and the words of an entry: what is read comes first, then the register that is written, the first of several
# in a row where an entry makes more than one. `@x` is the position of x, K the code of the unseen.
END: Final = 0
# Operations on every value alike.
VALUE: Final = 1  # register, value
FILL: Final = 2  # source, register, value
FILL_EQUAL: Final = 3  # source, register, value, missing
IS_NAN: Final = 4  # source, register
IS_EQUAL: Final = 5  # source, register, missing
CLIP: Final = 6  # source, register, low, high
STANDARDISE: Final = 7  # source, register, mean, scale
LINEAR: Final = 8  # source, register, scale, offset
BINARISE: Final = 9  # source, register, threshold
APPLY: Final = 10  # source, register, function
# Operations that make other columns of columns.
FIRST_COLUMN: Final = 11
CYCLIC: Final = 11  # source, two registers, period
YEO_JOHNSON: Final = 12  # source, register, lambda
BOX_COX: Final = 13  # source, register, lambda
QUANTILES: Final = 14  # source, register, n, @quantiles, @references, is normal
SPLINE: Final = 15  # source, registers, @spline
BUCKET: Final = 16  # source, register, n, @edges
MATCH: Final = 17  # source, register, n, @increasing values, @their codes and that of others, NaN's code
ONE_HOT: Final = 18  # source, registers, width, K, @places of the codes 0 to K
LOOKUP: Final = 19  # source, registers, m, K, @m numbers for each of the codes 0 to K
PRODUCT: Final = 20  # left, right, register
NORMALISE: Final = 21  # source, register, norm; all entries are a row
BINARY: Final = 22  # left, right, register, function of two
CHOOSE: Final = 23  # condition, value where it is not 0, value where it is, register
CALENDAR: Final = 24  # days, nanoseconds of the day, register, part
# Operations that touch the batch.
FIRST_EDGE: Final = 25
LOAD: Final = 25  # register, number column, column, @counts
FIND: Final = 26  # register, string column, column, @counts, @table
HASH: Final = (
    27  # registers, string column, width, is signed, is "" zeros, @prefix, its bytes, @mapping or 0, sides to strip
)
STORE: Final = 28  # source, output
ONE_HOT_OUT: Final = 29  # source, first output, K, @places
LOOKUP_OUT: Final = 30  # source, first output, m, K, @numbers
REFUSE_CODE: Final = 31  # source, K, refusal
REFUSE_OUTSIDE: Final = 32  # source, low, high, refusal
LOAD_TIME: Final = 33  # registers of days, nanoseconds of the day and seconds; time column, column, @counts
FIND_PREPARED: Final = 34  # register, string column, @table, @mapping, sides to strip, code of what becomes empty
GRAMS: Final = 35  # registers, string column, @grams
GRAMS_OUT: Final = 36  # string column, first output, @grams, @places

ENTRY_WORDS: Final = (
    0, 2, 3, 4, 2, 3, 4, 4, 4, 3, 3, 3, 3, 3, 6, 3, 4, 6, 5, 5, 3, 3, 4, 4, 4, 4, 5, 9, 2, 4, 5, 3, 4, 4, 6, 3, 4,
)  # fmt: skip
"""The words of an entry, by operation."""

# Functions; those from FIRST_EXACT on are exact in IEEE 754.
ARCCOS: Final = 0
ARCCOSH: Final = 1
ARCSIN: Final = 2
ARCSINH: Final = 3
ARCTAN: Final = 4
ARCTANH: Final = 5
CBRT: Final = 6
COS: Final = 7
COSH: Final = 8
EXP: Final = 9
EXP2: Final = 10
EXPM1: Final = 11
LOG: Final = 12
LOG10: Final = 13
LOG1P: Final = 14
LOG2: Final = 15
SIN: Final = 16
SINH: Final = 17
TAN: Final = 18
TANH: Final = 19
FIRST_EXACT: Final = 20
ABS: Final = 20
CEIL: Final = 21
FLOOR: Final = 22
ISFINITE: Final = 23
ISINF: Final = 24
ISNAN: Final = 25
NEGATIVE: Final = 26
RECIPROCAL: Final = 27
RINT: Final = 28
SIGN: Final = 29
SQRT: Final = 30
SQUARE: Final = 31
TRUNC: Final = 32
LOGICAL_NOT: Final = 33
SINGLE: Final = 34

# Functions of two values; those from FIRST_EXACT_OF_TWO on are exact in IEEE 754.
ARCTAN2: Final = 0
HYPOT: Final = 1
POWER: Final = 2
FIRST_EXACT_OF_TWO: Final = 3
ADD: Final = 3
SUBTRACT: Final = 4
MULTIPLY: Final = 5
DIVIDE: Final = 6
FLOOR_DIVIDE: Final = 7
REMAINDER: Final = 8
FMOD: Final = 9
MAXIMUM: Final = 10
MINIMUM: Final = 11
FMAX: Final = 12
FMIN: Final = 13
COPYSIGN: Final = 14
LESS: Final = 15
LESS_EQUAL: Final = 16
GREATER: Final = 17
GREATER_EQUAL: Final = 18
EQUAL: Final = 19
NOT_EQUAL: Final = 20
LOGICAL_AND: Final = 21
LOGICAL_OR: Final = 22
LOGICAL_XOR: Final = 23

# The parts of a time; those from FIRST_FLAG on are 0 where the time is missing, the others NaN.
YEAR: Final = 0
QUARTER: Final = 1
MONTH: Final = 2
DAY: Final = 3
HOUR: Final = 4
MINUTE: Final = 5
SECOND: Final = 6
MICROSECOND: Final = 7
NANOSECOND: Final = 8
WEEKDAY: Final = 9
DAY_OF_YEAR: Final = 10
WEEK: Final = 11
DAYS_IN_MONTH: Final = 12
FIRST_FLAG: Final = 13
IS_MONTH_START: Final = 13
IS_MONTH_END: Final = 14
IS_QUARTER_START: Final = 15
IS_QUARTER_END: Final = 16
IS_YEAR_START: Final = 17
IS_YEAR_END: Final = 18
IS_LEAP_YEAR: Final = 19
MISSING_TIME: Final = -(1 << 63)
"""The int64 of a missing time, as numpy and pandas have it."""

# The norms.
L1: Final = 0
L2: Final = 1
MAX: Final = 2

# A spline: its words, then the knots. `CONSTANT` and `SLOPE` need more after these, one number per basis function each: the
# values at the low end, the slopes there, the values at the high end, the slopes there.
SPLINE_DEGREE: Final = 0
SPLINE_KNOTS: Final = 1
SPLINE_KIND: Final = 2
SPLINE_WIDTH: Final = 3
SPLINE_ZEROS: Final = 4
SPLINE_WORDS: Final = 5
CONTINUE: Final = 0
CONSTANT: Final = 1
SLOPE: Final = 2
PERIODIC: Final = 3

# A table of strings: a mask, the longest string's length and the number of strings, then mask + 1 slots, a power of two
# and at least four times the strings, so that a search always ends at a free one. A free slot has the code -1.
TABLE_MASK: Final = 0
TABLE_LONGEST: Final = 1
TABLE_COUNT: Final = 2
TABLE_WORDS: Final = 3
SLOT_CODE: Final = 0
SLOT_TEXT: Final = 1
SLOT_LENGTH_BYTES: Final = 2
SLOT_HASH: Final = 3
SLOT_WORDS: Final = 4

# A table of characters has two stages: a word per run of code points says where its block is, equal blocks are there once.
POINTS: Final = 0xE0200
"""The code points in a table; those beyond are unassigned or private."""
ASCII: Final = 128
BLOCK_POINTS: Final = 128
BLOCK_SHIFT: Final = 7
REPLACEMENT: Final = 0xFFFD
SIGMA: Final = 0x3A3
"""The capital sigma; it becomes one of two letters, by its place in the word."""

# A mapping: its words, what each ASCII character becomes, the first stage, blocks of an entry per code point, and the texts
# that characters become, packed. An entry has these flags, the text's length, and its first byte's place among the texts.
# BEYOND is the entry of code points that are not in the table.
IS_LOWERING: Final = 0
TEXTS: Final = 1
BEYOND: Final = 2
MAPPING_WORDS: Final = 3
IS_CASED: Final = 1
IS_IGNORED: Final = 2
IS_BLANK: Final = 4
IS_CHANGED: Final = 8
LENGTH_AT: Final = 8
TEXT_AT: Final = 16

# The sides of a text to strip of white space.
LEFT: Final = 1
RIGHT: Final = 2

# A table of classes: the class of code points beyond it, the first stage, blocks of words with the classes of 16 code points.
CLASS_WORDS: Final = 1
CLASS_BITS: Final = 4
CLASSES_PER_WORD: Final = 16
WORD_SHIFT: Final = 4
IS_TOKEN: Final = 1
IS_WORD: Final = 2
IS_SPACE: Final = 4

# An encoder of grams: its words, then how the counts are weighed: for each step its kind and one word.
GRAMS_MAPPING: Final = 0
GRAMS_CLASSES: Final = 1
GRAMS_OF: Final = 2
GRAMS_SHORTEST: Final = 3
GRAMS_LONGEST: Final = 4
GRAMS_LEAST: Final = 5
GRAMS_RUN: Final = 6
GRAMS_TERMS: Final = 7
GRAMS_COLUMNS: Final = 8
GRAMS_IS_HASHED: Final = 9
GRAMS_IS_SIGNED: Final = 10
GRAMS_IS_BINARY: Final = 11
GRAMS_WIDTH: Final = 12
GRAMS_PLACES: Final = 13
GRAMS_WEIGHTS: Final = 14
GRAMS_WORDS: Final = 15
OF_WORDS: Final = 0
OF_CHARACTERS: Final = 1
OF_CHARACTERS_WITHIN: Final = 2
WEIGH_END: Final = 0
WEIGH_LOG: Final = 1
WEIGH_SCALE: Final = 2  # @weights
WEIGH_ABOVE: Final = 3  # threshold
WEIGH_NORM: Final = 4  # norm
WEIGH_WORDS: Final = 2

# A table of terms: a mask, the longest term's length, mask + 1 slots, a power of two and at least twice the terms, and the
# terms. A slot is 0, or the high half of the term's hash and the position of the term: its code and length in one word, and
# its text. Stop words have codes from the number of columns on.
TERMS_MASK: Final = 0
TERMS_LONGEST: Final = 1
TERMS_WORDS: Final = 2
CODE_AT: Final = 16

# The scratch of grams: where the last tokens begin, then COUNTED counts, zero between rows, and as many words each for the
# columns that the row has and for their values, then the sums of the projection.
RING: Final = 32
"""As many as a gram has words at most: `limits.MAX_GRAM`."""
PAD_BYTES: Final = 16
"""Free bytes on both sides of a text in scratch: for spaces around it, and for what is read a word at a time."""

# The hash of a string: for each word of it, xor, multiply, and fold the high half, which is mixed best, onto the low one.
HASH_START: Final = 0xCBF29CE484222325
HASH_PRIME: Final = 0x9E3779B97F4A7C15
WORD_BYTES: Final = 8
"""The bytes of a word of text; as much padding follows all strings, so that the last is read in words too."""

# The bytes before each raw string: its little-endian length.
LENGTH_BYTES: Final = 4

# Flags for `run`: count the raw values, and record which rows are refused. The bits from THINNING_AT on say how often the rows
# that are counted are thinned, those from TURN_AT on which batch it is, for the choice of these rows.
COUNTING: Final = 1
RECORDING: Final = 2
THINNING_AT: Final = 2
TURN_AT: Final = 8
TURNS: Final = 1 << 24
"""As many turns are told apart."""

# The results of `run`.
DONE: Final = 0
TORN: Final = 1
REFUSED: Final = 2
