"""The memory layout of an ensemble of trees, which `explain.trees` writes and the kernel `features.kernels.shapley` reads.

Like a program it is one block of 64-bit words: a header, then for each tree an entry, and the data that these point to. A
real number is the bits of a float64. Leaves are no nodes: a node's child is another node of its tree, which comes after
it, or a leaf. This module holds only integers: the kernels see them as constants.
"""

from typing import Final

# The header.
WORDS: Final = 0
TREES: Final = 1
WIDTH: Final = 2  # the columns of the matrix
GROUPS: Final = 3  # the sets of raw columns that share what a feature is worth
OUTPUTS: Final = 4
COLUMNS: Final = 5  # the raw columns
MOST_NODES: Final = 6  # of a tree
IS_SINGLE: Final = 7  # values are rounded to float32 before they are compared
ENTRIES: Final = 8  # @the trees' entries
SHARES: Final = 9  # @for each group where its entries begin, and then end: a raw column and its share, two words each
HEADER_WORDS: Final = 10

# A tree's entry.
NODES: Final = 0  # @its nodes
NODE_COUNT: Final = 1
UPPER_COUNT: Final = 2  # the nodes before the first of those at the end that have two leaves
FIRST_OUTPUT: Final = 3
OUTPUT_COUNT: Final = 4
POINTS: Final = 5  # @for each block of points the points, then their weights
BLOCK_COUNT: Final = 6
TREE_WORDS: Final = 7

# A node: eight words, so that it is one line of the cache.
FEATURE: Final = 0
THRESHOLD: Final = 1  # a value goes left if it is <= this; or, of a node of categories, @their number and bits
LEFT: Final = (
    2  # a node of the tree, or with its sign changed @the values of a leaf, one for each of the tree's outputs
)
RIGHT: Final = 3
BEFORE: Final = (
    4  # twice the last node above that asks for the same feature, and 1 if this is on its right; -1 for none
)
SHARE_LEFT: Final = 5  # of the training rows, among those that the feature let come here
SHARE_RIGHT: Final = 6
GROUP: Final = 7  # the feature's group, shifted left by `FLAG_BITS`, plus the flags
NODE_WORDS: Final = 8

FLAG_BITS: Final = 3
MISSING_LEFT: Final = 1
IS_CATEGORICAL: Final = 2
ZERO_IS_MISSING: Final = 4

LANES: Final = 4
"""The points that the kernel treats together: 4 points are exact for paths of up to 8 features."""
