"""The tables of plain requests, which their kernels and their Python share: rows of 64-bit words.

A word is addressed as `row + WORD`, in bytes. Times are in nanoseconds on the monotonic clock; an address of 0 is none.
"""

from typing import Final


def _words(count: int) -> list[int]:
    return [8 * at for at in range(count)]


# The state: one row.
(
    T_ENTRIES, T_ENTRY_OF, T_FREE, T_FREE_COUNT, T_PLANS, T_PLAN_COUNT, T_BUCKETS, T_LANES, T_TOUCHED, T_TOUCHED_COUNT,
    T_SKELETON, T_MAX_BYTES, T_METHOD, T_SCRATCH, T_REFUSED, T_REFUSED_COUNT, T_EXPIRED, T_EXPIRED_SIZE, T_STOPPED,
    T_STOPPED_SIZE, T_STOPPED_COUNT, T_HASHING, T_RANDOM,
) = _words(23)  # fmt: skip
STATE_BYTES: Final = 24 * 8
"""`T_REFUSED` are operations that end the calls which are refused; the transport does them after each turn. `T_EXPIRED` is
what a call is told whose deadline has passed, and `T_STOPPED` what all are told once the server drains."""

# What the scan finds in a message.
(
    F_SIZE, F_HASH, F_ROWS, F_INPUTS, F_RAW_AT, F_ID_AT, F_ID_SIZE, F_KEY_AT, F_KEY_SIZE, F_TIMEOUT, F_PRIORITY,
) = _words(11)  # fmt: skip
FOUND_BYTES: Final = 16 * 8

# A plan: what requests with the same skeleton share.
(P_SKELETON, P_SIZE, P_HASH, P_LANE, P_INPUTS, P_COLUMNS, P_NUMBER, P_NEXT, P_CANARY, P_SHARE, P_SALT) = _words(11)
PLAN_BYTES: Final = 12 * 8
"""Where a canary answers a share of the requests, `P_CANARY` is one more than the number of its own plan, which no request is
found by; `P_SALT` has 16 bytes."""

# What hashing a routing key takes: the order of the message's words in each round as bytes, then words.
HASH_ORDER: Final = 0
HASH_INITIAL: Final = 160
HASH_STATE: Final = HASH_INITIAL + 8 * 8
HASH_WORK: Final = HASH_STATE + 8 * 8
HASH_MESSAGE: Final = HASH_WORK + 16 * 8
HASH_BYTES: Final = HASH_MESSAGE + 16 * 8

# What a plan does with one raw tensor.
(D_KIND, D_BLOCK, D_PLACE, D_BYTES, D_REQUIRED) = _words(5)
COLUMN_BYTES: Final = 5 * 8

ROWS: Final = 1
"""Whole rows of the block, side by side as they are."""
DOUBLES: Final = 2
"""One column of float64s in a matrix of them."""
SINGLES: Final = 3
"""One column of float32s in a matrix of float64s."""
WORDS32: Final = 4
"""One column of four bytes in a matrix of the same."""
TEXTS: Final = 5
"""One column of texts, each with its length before it."""

# A lane: the plain requests that wait for one version.
(
    L_LEVELS, L_REQUESTS, L_ROWS, L_BYTES, L_MAX_REQUESTS, L_MAX_ROWS, L_MAX_BYTES, L_IS_OPEN, L_USUAL_ROWS, L_IS_TOUCHED,
    L_BLOCKS, L_BLOCK_COUNT, L_TIMED, L_BASE, L_ROW, L_BUSY_UNTIL, L_LARGEST, L_LEFT, L_OTHER_REQUESTS, L_OTHER_ROWS,
    L_OTHER_BYTES, L_PROBE_AT, L_OBJECTIVE, L_DELAY, L_DELAYED_UNTIL, L_HALFWAY, L_ENDINGS, L_TAKEN_ROWS,
    L_REFUSED,
) = _words(29)  # fmt: skip
LANE_BYTES: Final = 32 * 8
"""The others are what waits in the version's queue: both together respect its limits. `L_BUSY_UNTIL` is 0 while nothing runs.
`L_TAKEN_ROWS` are those of the batch that was taken last. From `L_REFUSED` on, the refused requests are counted by their
reason."""

# Why a request is refused, in the order of `L_ENDINGS` and of the counts.
FULL: Final = 0
LATE: Final = 1
"""It cannot be answered before its deadline."""
MISSED: Final = 2
"""It cannot be answered within the model's objective."""
PASSED: Final = 3
"""Its deadline had passed when it came."""
REASONS: Final = 4

# How a refused call ends: the block of its trailers.
(G_AT, G_SIZE) = _words(2)
ENDING_BYTES: Final = 2 * 8

# A level of a lane: its requests of one priority, first in first out.
(V_FIRST, V_LAST, V_REQUESTS, V_ROWS) = _words(4)
LEVEL_BYTES: Final = 4 * 8
LEVELS: Final = 9
"""Priority 1 goes first; that of the others is as `batching.priorities` has it."""
DEFAULT_LEVEL: Final = 5
LEVEL_NS: Final = 1_000_000_000

# A block of a lane's batch.
(B_DATA, B_CAPACITY, B_SIZE, B_ROW_BYTES) = _words(4)
BLOCK_BYTES: Final = 4 * 8

# A request that a lane has.
(
    N_STATE, N_SLOT, N_LANE, N_PLAN, N_DATA, N_SIZE, N_ROWS, N_RAW_AT, N_ID_AT, N_ID_SIZE, N_ARRIVED, N_DEADLINE,
    N_PRIORITY, N_NEXT, N_BEFORE,
) = _words(15)  # fmt: skip
ENTRY_BYTES: Final = 16 * 8

FREE: Final = 0
WAITING: Final = 1
RUNNING: Final = 2
LEFT: Final = 3
"""Its caller is gone, and its rows are in a batch still."""

# What a batch's answers are made of. For each output:
(A_DATA, A_ROW_BYTES, A_OFFSETS) = _words(3)
OUTPUT_BYTES: Final = 3 * 8
"""Bytes of its rows one after another; `A_OFFSETS` says where each row begins where they vary, and is 0 elsewhere."""

# What `answer` is given, and gives back.
(
    W_STATE, W_BATCH, W_COUNT, W_OUTPUTS, W_LAYOUTS, W_LAYOUT_COUNT, W_NAMES, W_BEGAN, W_OPERATIONS, W_BLOCK, W_CAPACITY,
    W_MOST, W_SIZE, W_ENDED, W_COMPUTED, W_ROWS, W_LATENCY, W_SCRATCH,
) = _words(18)  # fmt: skip
ANSWER_BYTES: Final = 18 * 8

# The names of the parameters of a reply: their sizes, and then themselves.
(K_COMPUTED, K_ROWS, K_QUEUE, K_NAMES) = _words(4)

# Where the latencies of requests are counted: the upper bounds of the cells, the cells of what they took in all and of what
# they waited, and the sums of both, which are float64.
(H_EDGES, H_EDGE_COUNT, H_TOTAL, H_QUEUE, H_TOTAL_SUM, H_QUEUE_SUM) = _words(6)
LATENCY_BYTES: Final = 6 * 8
SCRATCH_BYTES: Final = 1024

# For each plan and number of rows, the constant part of an answer.
(Y_PLAN, Y_ROWS, Y_PREFIX, Y_PREFIX_SIZE, Y_OUTPUTS, Y_OUTPUT_COUNT) = _words(6)
LAYOUT_BYTES: Final = 6 * 8
(YO_OUTPUT, YO_HEAD, YO_HEAD_SIZE) = _words(3)
LAYOUT_OUTPUT_BYTES: Final = 3 * 8

MAX_SKELETON: Final = 1 << 15
MAX_INPUTS: Final = 2048
MAX_PLANS: Final = 1 << 10
BUCKETS: Final = 1 << 12
MAX_LANES: Final = 1 << 10
MAX_ENTRIES: Final = 1 << 16
OPERATION_BYTES: Final = 5 * 8
"""Of the transport's operations."""
MAX_REFUSED: Final = 1 << 20
"""As many as a turn has events."""
MAX_KEY_BYTES: Final = 256
KEPT_BYTES: Final = 1 << 22
"""A buffer that has grown beyond this is given back before the next batch: few batches are so large."""
NONE: Final = -1
NEVER: Final = 1 << 62
