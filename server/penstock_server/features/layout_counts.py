"""How the drift counts lie in memory: what `program_counts` writes for a raw column and `kernels.count` reads and adds to.

A row of counts, one for each column, is its bins, then the cells for what is in no bin, then two tallies of rows that are
in a bin already, then the sum of the values in each bin as float64 bits. All rows are as long as the longest needs.

Only integers stand here: the kernels see them as constants.
"""

from typing import Final

# A row of counts, after its bins. Bins and these cells hold each row of a request once.
MISSING: Final = 0
INFINITE: Final = 1
UNSEEN: Final = 2
EXTRA_CELLS: Final = 3
# Finite values below the reference's smallest and above its largest, which the end bins hold too.
BELOW: Final = 3
ABOVE: Final = 4
TALLIES: Final = 2

# A number column's words: EDGES, the offset of the first, then the guide. Reals are float64 bits. A value's place in the
# guide is (value - LOW) * SCALE, within 0 and TOP; the guide says how many edges have a smaller place, and REACH how many
# have the same at most. SMALLEST and LARGEST are the reference's range.
EDGES: Final = 0
EDGES_AT: Final = 1
REACH: Final = 2
LOW: Final = 3
SCALE: Final = 4
TOP: Final = 5
SMALLEST: Final = 6
LARGEST: Final = 7
GUIDE: Final = 8

# A string column's words are the cell of each code that its look-up gives, the last for what the look-up does not find.


def words(bins: int) -> int:
    """The words of a row of counts with so many bins."""
    return 2 * bins + EXTRA_CELLS + TALLIES


def bins(words: int) -> int:
    """The bins of a row of counts with so many words."""
    return (words - EXTRA_CELLS - TALLIES) // 2
