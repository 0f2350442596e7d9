"""The tables of plain requests, which their kernels and their Python share: rows of 64-bit words.

A word is addressed as `row + WORD`, in bytes. Times are in nanoseconds on the monotonic clock; an address of 0 is none.
"""

from typing import Final


def _words(count: int) -> list[int]:
    return [8 * at for at in range(count)]


# The state: one row.
(
    T_ENTRIES, T_ENTRY_OF, T_FREE, T_FREE_COUNT, T_PLANS, T_BUCKETS, T_LANES, T_TOUCHED, T_TOUCHED_COUNT,
    T_SKELETON, T_MAX_BYTES, T_METHOD, T_SCRATCH, T_REFUSED, T_REFUSED_COUNT, T_EXPIRED, T_EXPIRED_SIZE, T_STOPPED,
    T_STOPPED_SIZE, T_STOPPED_COUNT, T_HASHING, T_RANDOM, T_TOUCHED_AT, T_TOUCHED_END, T_REPLIES, T_REPLY_COUNT, T_BLOCK,
    T_BLOCK_CAPACITY, T_BLOCK_SIZE, T_BATCH, T_BATCH_COUNT, T_CLOCK, T_BUFFERS, T_ARRAYS,
    T_OUTCOME, T_STREAMS, T_CALLERS, T_CALLER_BUCKETS, T_TRACES,
) = _words(39)  # fmt: skip
STATE_BYTES: Final = 39 * 8
"""`T_REFUSED` are operations that end the calls which are refused; the transport does them after each turn. `T_EXPIRED` is
what a call is told whose deadline has passed, and `T_STOPPED` what all are told once the server drains. `T_REPLIES` are
operations that send the replies in `T_BLOCK`. `T_BATCH` holds the batch that kernels run, and `T_OUTCOME` what became of it.
`T_CALLERS` are those that are known, and 0 where nobody is asked who calls; the headers of calls are in `T_STREAMS`.
`T_TRACES` is what traces take, and 0 where nothing is traced."""

# What traces take: the page that all workers share and the worker's region, as `tracing.layout` has them, and what was found
# of the call that was looked at last: five words, which a request that is traced keeps in the same order from `N_SPAN` on.
(X_PAGE, X_REGION, X_SPAN, X_TRACE_HIGH, X_TRACE_LOW, X_PARENT, X_KIND) = _words(7)
TRACES_BYTES: Final = 8 * 8
TRACED_BYTES: Final = 5 * 8

# A caller that was verified: the bytes that it showed, which are none of a certificate; until when it is known; where its
# bucket is, if its calls are limited, whose that must be, what a call takes from it, and what it holds, as times; then a bit
# for each plan of which it may have requests taken.
(
    R_VALUE, R_SIZE, R_NEXT, R_SERIAL, R_UNTIL, R_BUCKET, R_KEY, R_INTERVAL, R_DEPTH, R_PLANS,
) = _words(10)  # fmt: skip
SERIAL_BITS: Final = 16
"""`R_SERIAL` is of no other caller, then or later. Its lowest bits are one more than the row's number."""
MAX_CALLERS: Final = 1 << 10
CALLER_BUCKETS: Final = 1 << 11

# What the scan finds in a message.
(
    F_SIZE, F_HASH, F_ROWS, F_INPUTS, F_RAW_AT, F_ID_AT, F_ID_SIZE, F_KEY_AT, F_KEY_SIZE, F_TIMEOUT, F_PRIORITY,
) = _words(11)  # fmt: skip
FOUND_BYTES: Final = 16 * 8

# A plan: what requests with the same skeleton share.
(
    P_SKELETON, P_SIZE, P_HASH, P_LANE, P_INPUTS, P_COLUMNS, P_NUMBER, P_NEXT, P_CANARIES, P_SHARES, P_SALT,
) = _words(11)  # fmt: skip
P_ROLE: Final = 12 * 8
P_WEIGHT: Final = 13 * 8
PLAN_BYTES: Final = 14 * 8
"""Where canaries answer shares of the requests, `P_CANARIES` says how many. Their own plans, which no request is found by, are
those behind this one. `P_SALT` has 16 bytes. `P_ROLE` and `P_WEIGHT`, a float64, say how its requests come to the version, as
`labels.layout` has it."""

# Who answers requests that name no version: up to which place, the next from there, and the number of the plan.
(Q_END, Q_PLAN) = _words(2)
SHARE_BYTES: Final = 2 * 8

# What hashing a routing key or an id takes.
HASH_INITIAL: Final = 0
HASH_STATE: Final = HASH_INITIAL + 8 * 8
HASH_MESSAGE: Final = HASH_STATE + 8 * 8
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
SINGLE_ROWS: Final = 6
"""Whole rows of float32s for a matrix of float64s."""

# A lane: the plain requests that wait for one version.
(
    L_LEVELS, L_REQUESTS, L_ROWS, L_BYTES, L_MAX_REQUESTS, L_MAX_ROWS, L_MAX_BYTES, L_IS_OPEN, L_USUAL_ROWS, L_IS_TOUCHED,
    L_BLOCKS, L_BLOCK_COUNT, L_TIMED, L_BASE, L_ROW, L_BUSY_UNTIL, L_LARGEST, L_LEFT, L_OTHER_REQUESTS, L_OTHER_ROWS,
    L_OTHER_BYTES, L_PROBE_AT, L_OBJECTIVE, L_DELAY, L_DELAYED_UNTIL, L_HALFWAY, L_ENDINGS, L_TAKEN_ROWS,
    L_COUNTS, L_FUSED, L_SEEN, L_REPEATED, L_SUBJECT, L_ROUTED,
) = _words(34)  # fmt: skip
LANE_BYTES: Final = 40 * 8
"""The others are what waits in the version's queue: both together respect its limits. `L_BUSY_UNTIL` is 0 while nothing runs.
`L_TAKEN_ROWS` are those of the batch that was taken last. At `L_COUNTS` are the addresses of the cells in which refused
requests are counted by their reason, and last of the cell of those that were cancelled. `L_FUSED` is what kernels run the
lane's batches by; 0 where Python runs them. `L_SEEN` is a table of what recent requests held, by which repeats are known; 0
where nobody asks. `L_REPEATED` is 1 if the batch that was taken last has repeats alone. `L_SUBJECT` is what traces call the
version. `L_ROUTED` is the address of the cell that counts requests which name no version."""

SEEN: Final = 4096
"""The recent requests among which one may be again, in sets of `WAYS`: which set follows from what a request holds."""
WAYS: Final = 4
SEEN_BYTES: Final = 512
"""Of a longer request the beginning and the end are compared, and its length."""

# Why a request is refused, in the order of `L_ENDINGS` and of the counts.
FULL: Final = 0
LATE: Final = 1
"""It cannot be answered before its deadline."""
MISSED: Final = 2
"""It cannot be answered within the model's objective."""
PASSED: Final = 3
"""Its deadline had passed when it came."""
REASONS: Final = 4

# How a refused call ends: the block of its trailers, and gRPC's number for it.
(G_AT, G_SIZE, G_CODE) = _words(3)
ENDING_BYTES: Final = 3 * 8

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
    N_PRIORITY, N_NEXT, N_BEFORE, N_SPAN, N_TRACE_HIGH, N_TRACE_LOW, N_PARENT, N_KIND, N_KEY,
) = _words(21)  # fmt: skip
ENTRY_BYTES: Final = 24 * 8
"""`N_SPAN` is 0 where a request is not traced, and then the four words behind it say nothing. `N_KEY` is that of an answered
request's id, where its answers are recorded, or 0 if it has none."""

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
    W_STATE, W_BATCH, W_COUNT, W_OUTPUTS, W_LAYOUTS, W_LAYOUT_COUNT, W_NAMES, W_BEGAN, W_MOST, W_ENDED, W_COMPUTED, W_ROWS,
    W_LATENCY, W_SCRATCH, W_TOO_LARGE, W_REPEATED, W_FEATURES, W_INFER, W_RECORDS,
) = _words(19)  # fmt: skip
ANSWER_BYTES: Final = 19 * 8
"""`W_TOO_LARGE` are the requests whose reply is larger than `W_MOST`. Where `W_REPEATED` is 1, drift counts nothing.
`W_FEATURES` and `W_INFER` are what both took, in nanoseconds. `W_RECORDS` is how answers are recorded, 0 where they are not."""

# How a version's answers are recorded: the worker's file, the version's place in its table, and the model's salt of 16 bytes;
(
    J_RING, J_VERSION, J_SALT, J_SALT_2,
    # how the prediction is read, from which output, of which type, how wide it is, and the class for each of its texts;
    J_HOW, J_OUTPUT, J_KIND, J_WIDTH, J_CLASS_OF_TEXT,
    # the output with the scores, `NONE` for none, its type and how wide it is;
    J_SCORE_OUTPUT, J_SCORE_KIND, J_SCORE_WIDTH,
    # float64s of the batch in place of all that, where Python has read them, else 0.
    J_PREDICTIONS, J_SCORES,
) = _words(14)  # fmt: skip
RECORDING_BYTES: Final = 14 * 8

# The names of the parameters of a reply: their sizes, and then themselves.
(K_COMPUTED, K_ROWS, K_QUEUE, K_NAMES) = _words(4)

# Where the latencies of requests are counted: the upper bounds of the cells, the cells of what they took in all and of what
# they waited, and the sums of both, which are float64; for each stage and cell, the traced request that was counted there last,
# or 0 where none is; last the cells of what those took in all that named the version.
(H_EDGES, H_EDGE_COUNT, H_TOTAL, H_QUEUE, H_TOTAL_SUM, H_QUEUE_SUM, H_EXEMPLARS, H_NAMED) = _words(8)
LATENCY_BYTES: Final = 8 * 8
SCRATCH_BYTES: Final = 1024

# A fused lane: what kernels run its batches by. The feature kernel, what it is called with, and the batches that it takes:
(
    U_FEATURES, U_PROGRAM, U_FEATURE_SCRATCH, U_TIMES, U_STRINGS, U_MATRIX_BYTES, U_MOST_TEXT,
    # the kernel of models, what it is called with, the most rows, a bit for each of `choice.SIZES`;
    U_MODEL, U_HEAD, U_MOST_ROWS, U_SIZES, U_OUTPUTS,
    # for each output the bytes of a row, and the table of its texts, if its numbers stand for texts;
    U_ROW_BYTES, U_ROW_BYTES_2, U_ROW_BYTES_3, U_TEXTS, U_TEXTS_2, U_TEXTS_3,
    # what answers are made of, the cell that shows when a run began, how many requests pass until one is logged, and when, in
    # nanoseconds of `kernels.clock`, the next batch is left to Python to be counted by two columns at once, or 0 for never;
    U_ANSWERS, U_RUNNING, U_TO_PASS, U_JOINT_DUE,
    # what is known of the cost, the most rows of a batch, and how long it may take, float64;
    U_COST, U_LIMIT_ROWS, U_SPAN,
    # where batches are counted, and what waits, here and beside the lane;
    U_STAGES, U_WAITING, U_BESIDE_ROWS, U_BESIDE_REQUESTS,
    # the ring of drift counts: its first window, the number of the current one, the rows in each, how many there are, the
    # bytes of one, the rows after which the next begins, and where in a window classes are counted;
    U_DRIFT, U_DRIFT_AT, U_DRIFT_ROWS, U_WINDOWS, U_WINDOW_BYTES, U_WINDOW_ROWS, U_CLASSES_AT,
    # the classes: how they are read, from which output, of which type, and how wide; one for each text; the known ones;
    U_PREDICTED, U_PREDICTED_OUTPUT, U_PREDICTED_KIND, U_PREDICTED_WIDTH, U_CLASS_OF_TEXT, U_CLASSES, U_CLASS_COUNT,
    # the numbers that are counted for drift, and the bins of a row of counts;
    U_NUMBERS, U_NUMBER_COUNT, U_BINS,
    # how many batches pass until a shadow gets one, with the rows that have passed; 0 where none is left out for shadows.
    U_COPIES,
) = _words(47)  # fmt: skip
FUSED_BYTES: Final = 47 * 8
"""The memory that stays a `Fused` keeps."""

# What is known of the cost of batches, float64, as `batching.cost.CostModel` has it.
(
    COST_BASE, COST_ROW, COST_MEAN_ROWS, COST_MEAN_S, COST_VARIANCE, COST_COVARIANCE, COST_SLOPE, COST_SEEN,
) = _words(8)  # fmt: skip
MAX_OUTPUTS: Final = 3

# Where a batch is counted: cells of features and of the model by what they took, sums of both by the batch's rows and by
# request, float64, when it was answered, then batches by their rows, all rows, all requests; bounds of rows.
(
    S_FEATURES, S_INFER, S_FEATURES_SUMS, S_INFER_SUMS, S_REQUEST_SUMS, S_ANSWERED, S_BATCHES, S_ALL_ROWS, S_ALL_REQUESTS,
    S_ROW_EDGES, S_ROW_EDGE_COUNT,
) = _words(11)  # fmt: skip
STAGE_BYTES: Final = 11 * 8

# A class: its label, the address of the cell that counts it, and its place in a window's predictions.
(C_LABEL, C_CELL, C_PLACE) = _words(3)
CLASS_BYTES: Final = 3 * 8

# A number of each row's answer, which is counted for drift: the output that it is the largest of, its type and how wide it is;
# where in a window it is counted; the edges of its bins, and the range of the reference, float64.
(M_OUTPUT, M_KIND, M_WIDTH, M_AT, M_EDGES, M_EDGE_COUNT, M_SMALLEST, M_LARGEST) = _words(8)
NUMBER_BYTES: Final = 8 * 8

# A table of texts: where each begins, one more than there are, and where their bytes are; each text has its length before it.
(X_STARTS, X_BYTES) = _words(2)
TEXTS_BYTES: Final = 2 * 8

# Which of the blocks that all fused lanes share is which: outputs of the model are first, then their texts.
TEXT_BUFFER: Final = MAX_OUTPUTS
START_BUFFER: Final = 2 * MAX_OUTPUTS
MATRIX_BUFFER: Final = 3 * MAX_OUTPUTS
NUMBERS_BUFFER: Final = MATRIX_BUFFER + 1
STRINGS_BUFFER: Final = MATRIX_BUFFER + 2
BUFFERS: Final = MATRIX_BUFFER + 3
CLOCK_BYTES: Final = 3 * 8
ARRAY_BYTES: Final = 3 * 8
"""The beginning of an array of numpy, as far as the kernels of models look."""

# How classes are read.
NOTHING: Final = 0
"""There are none."""
LABELS: Final = 1
LARGEST: Final = 2
"""The class is the place of the largest score."""
NUMBER: Final = 3
"""There is no class, but a number."""

# What became of a lane that Python is to look at.
TOUCHED: Final = 1
"""Something has changed in a lane that is not fused."""
TO_RUN: Final = 2
"""A batch was taken that kernels do not run."""
TO_REFUSE: Final = 3
"""The features refuse rows of the batch; they are counted."""
TO_FINISH: Final = 4
"""Some replies of the batch are too large."""
TO_COUNT: Final = 5
"""The batch is answered but for replies that are too large. A class is not known, and no answer is counted."""
TO_FAIL: Final = 6
"""There was no memory."""
TO_LAY_OUT: Final = 7
"""The constant part of a reply is not known, and nothing was done."""

# For each plan and number of rows, the constant part of an answer.
(Y_PLAN, Y_ROWS, Y_PREFIX, Y_PREFIX_SIZE, Y_OUTPUTS, Y_OUTPUT_COUNT) = _words(6)
LAYOUT_BYTES: Final = 6 * 8
(YO_OUTPUT, YO_HEAD, YO_HEAD_SIZE) = _words(3)
LAYOUT_OUTPUT_BYTES: Final = 3 * 8

MAX_SKELETON: Final = 1 << 15
MAX_INPUTS: Final = 2048
MAX_PLANS: Final = 1 << 10
BUCKETS: Final = 1 << 12
CALLER_BYTES: Final = R_PLANS + MAX_PLANS // 8
MAX_LANES: Final = 1 << 10
MAX_ENTRIES: Final = 1 << 16
OPERATION_BYTES: Final = 5 * 8
"""Of the transport's operations."""
MAX_REFUSED: Final = 1 << 20
"""As many as a turn has events."""
MAX_KEY_BYTES: Final = 256
KEPT_BYTES: Final = 1 << 22
"""A buffer that has grown beyond this is given back before the next batch: few batches are so large."""
MOST_REQUESTS: Final = 4096
"""Of one batch."""
MOST_REPLY_BYTES: Final = 1 << 20
"""Fused lanes wait for their replies to be sent when there are so many."""
NONE: Final = -1
NEVER: Final = 1 << 62
