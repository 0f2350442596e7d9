"""Fused lanes: from the messages that wait to the replies, features and model included, without Python.

A lane is fused if kernels can do all that its batches take: the columns become a matrix, trees or linear models answer it, and
what is counted has its cells in memory. The kernels of features and of models are called by their addresses. `serve` goes
through the lanes in which something has changed, runs a batch of each, and leaves to Python what is not fused, or not usual.
"""

from penstock_server.compiled_models.choice import LIMITS
from penstock_server.compiled_models.layout import ARRAY_DATA
from penstock_server.features.compiler.layout import COUNTING, DONE, REFUSED, WORD_BYTES
from penstock_server.kernels.base import call, kernel
from penstock_server.kernels.clock import clock_ns
from penstock_server.kernels.memory import copy, move, set_word, word
from penstock_server.plain.kernels.counts import (
    count_classes,
    count_drift_rows,
    count_numbers,
    count_stages,
    learn,
    tell_cost,
    window,
)
from penstock_server.plain.kernels.lanes import answer, end_batch, gather, give_back, missing_layout, room
from penstock_server.plain.kernels.waiting import add_to, touch
from penstock_server.plain.layout import (
    A_DATA,
    A_OFFSETS,
    A_ROW_BYTES,
    ARRAY_BYTES,
    B_CAPACITY,
    B_DATA,
    B_SIZE,
    BLOCK_BYTES,
    L_BLOCKS,
    L_FUSED,
    L_IS_TOUCHED,
    L_LARGEST,
    L_LEFT,
    L_OTHER_REQUESTS,
    L_OTHER_ROWS,
    L_REPEATED,
    L_REQUESTS,
    L_ROWS,
    L_TAKEN_ROWS,
    L_TIMED,
    LANE_BYTES,
    MATRIX_BUFFER,
    MAX_OUTPUTS,
    MOST_REPLY_BYTES,
    MOST_REQUESTS,
    NONE,
    NOTHING,
    NUMBERS_BUFFER,
    OUTPUT_BYTES,
    START_BUFFER,
    STRINGS_BUFFER,
    T_ARRAYS,
    T_BATCH,
    T_BATCH_COUNT,
    T_BLOCK_SIZE,
    T_BUFFERS,
    T_CLOCK,
    T_LANES,
    T_OUTCOME,
    T_TOUCHED,
    T_TOUCHED_AT,
    T_TOUCHED_COUNT,
    T_TOUCHED_END,
    TEXT_BUFFER,
    TO_COUNT,
    TO_FAIL,
    TO_FINISH,
    TO_REFUSE,
    TO_RUN,
    TOUCHED,
    U_ANSWERS,
    U_BESIDE_REQUESTS,
    U_BESIDE_ROWS,
    U_CLASS_OF_TEXT,
    U_COPIES,
    U_COST,
    U_DRIFT,
    U_FEATURE_SCRATCH,
    U_FEATURES,
    U_HEAD,
    U_JOINT_DUE,
    U_MATRIX_BYTES,
    U_MODEL,
    U_MOST_ROWS,
    U_MOST_TEXT,
    U_OUTPUTS,
    U_PREDICTED,
    U_PREDICTED_OUTPUT,
    U_PROGRAM,
    U_ROW_BYTES,
    U_RUNNING,
    U_SIZES,
    U_STRINGS,
    U_TEXTS,
    U_TIMES,
    U_TO_PASS,
    U_WAITING,
    W_BATCH,
    W_BEGAN,
    W_COMPUTED,
    W_COUNT,
    W_ENDED,
    W_FEATURES,
    W_INFER,
    W_LATENCY,
    W_LAYOUT_COUNT,
    W_LAYOUTS,
    W_OUTPUTS,
    W_REPEATED,
    W_ROWS,
    W_TOO_LARGE,
    X_BYTES,
    X_STARTS,
)


@kernel
def buffer(state: int, number: int, size: int) -> int:
    """The address of a buffer with room for so many bytes; 0 if there is no memory. What was in it is lost."""
    row = word(state + T_BUFFERS) + number * BLOCK_BYTES
    give_back(row + B_DATA, row + B_CAPACITY)
    return word(row + B_DATA) if room(row, size) else 0


@kernel
def joined(state: int, number: int, lane: int, first: int, count: int, padding: int) -> int:
    """Some blocks of a lane one behind the other, and zeros behind them; 0 if there is no memory."""
    blocks, size = word(lane + L_BLOCKS), 0
    for at in range(first, first + count):
        size += word(blocks + at * BLOCK_BYTES + B_SIZE)
    data = buffer(state, number, size + padding)
    if data == 0:
        return 0
    end = data
    for at in range(first, first + count):
        block = blocks + at * BLOCK_BYTES
        copy(end, word(block + B_DATA), word(block + B_SIZE))
        end += word(block + B_SIZE)
    for at in range(0, padding, 8):
        set_word(end + at, 0)
    return data


@kernel
def text_bytes(lane: int, fused: int) -> int:
    """The bytes of the texts of a batch."""
    first, size = 1 + word(fused + U_TIMES), 0
    for at in range(first, first + word(fused + U_STRINGS)):
        size += word(word(lane + L_BLOCKS) + at * BLOCK_BYTES + B_SIZE)
    return size


@kernel
def is_usual(state: int, lane: int, fused: int, count: int, rows: int, now: int) -> bool:
    """Whether kernels run the batch that was taken: it is brief, and Python has nothing to do with any of its requests."""
    size = 0
    for limit in LIMITS:
        size += rows > limit
    to_pass, joint_due = word(fused + U_TO_PASS), word(fused + U_JOINT_DUE)
    answers, copies = word(fused + U_ANSWERS), word(fused + U_COPIES)
    return (
        rows <= word(fused + U_MOST_ROWS)
        and (word(fused + U_SIZES) >> size & 1) != 0
        and (word(fused + U_STRINGS) == 0 or text_bytes(lane, fused) <= word(fused + U_MOST_TEXT))
        and (to_pass == 0 or word(to_pass) >= count)
        and (joint_due == 0 or word(joint_due) > now)
        and (copies == 0 or word(copies) > 0)
        and missing_layout(word(state + T_BATCH), count, word(answers + W_LAYOUTS), word(answers + W_LAYOUT_COUNT))
        == NONE
    )


@kernel
def run_features(state: int, lane: int, fused: int, rows: int) -> int:
    """Has the features of a batch in the buffer of matrices, and counts them; what is left to Python."""
    numbers = word(word(lane + L_BLOCKS) + B_DATA)
    times, strings = word(fused + U_TIMES), word(fused + U_STRINGS)
    if times:
        numbers = joined(state, NUMBERS_BUFFER, lane, 0, 1 + times, 0)
    texts = joined(state, STRINGS_BUFFER, lane, 1 + times, strings, WORD_BYTES)
    matrix = buffer(state, MATRIX_BUFFER, rows * word(fused + U_MATRIX_BYTES))
    if (times and numbers == 0) or texts == 0 or matrix == 0:
        return TO_FAIL
    is_counting = word(fused + U_DRIFT) != 0 and word(lane + L_REPEATED) == 0
    found = call(
        word(fused + U_FEATURES),
        (
            word(fused + U_PROGRAM),
            numbers,
            texts,
            text_bytes(lane, fused),
            rows,
            matrix,
            window(fused) if is_counting else matrix,
            word(fused + U_FEATURE_SCRATCH),
            matrix,
            COUNTING if is_counting else 0,
        ),
    )
    if found not in (DONE, REFUSED):
        return TO_RUN  # which says what is wrong
    if is_counting:
        count_drift_rows(fused, rows)
    return TO_REFUSE if found == REFUSED else 0


@kernel
def run_model(state: int, lane: int, fused: int, rows: int) -> int:
    """Has the outputs of a batch in their buffers; what is left to Python."""
    arrays = word(state + T_ARRAYS)
    outputs = word(fused + U_OUTPUTS)
    for number in range(MAX_OUTPUTS):
        data = buffer(state, number, rows * word(fused + U_ROW_BYTES + 8 * number)) if number < outputs else 0
        if number < outputs and data == 0:
            return TO_FAIL
        # The kernels of models find the elements where an array of numpy says that they are.
        set_word(arrays + number * ARRAY_BYTES + 8 * ARRAY_DATA, data)
    matrix = word(word(lane + L_BLOCKS) + B_DATA)
    if word(fused + U_FEATURES):
        matrix = word(word(state + T_BUFFERS) + MATRIX_BUFFER * BLOCK_BYTES + B_DATA)
    second = arrays + ARRAY_BYTES if outputs > 1 else arrays
    third = arrays + 2 * ARRAY_BYTES if outputs > 2 else arrays
    call(word(fused + U_MODEL), (word(fused + U_HEAD), matrix, rows, arrays, second, third))
    return 0


@kernel
def spell(state: int, number: int, texts: int, rows: int, width: int) -> bool:
    """Writes the texts that an output's numbers stand for, and where each row begins; false if there is no memory."""
    places = word(word(state + T_BUFFERS) + number * BLOCK_BYTES + B_DATA)
    starts, size = word(texts + X_STARTS), 0
    for at in range(rows * width):
        place = word(places + 8 * at)
        size += word(starts + 8 * (place + 1)) - word(starts + 8 * place)
    data = buffer(state, TEXT_BUFFER + number, size)
    offsets = buffer(state, START_BUFFER + number, 8 * (rows + 1))
    if data == 0 or offsets == 0:
        return False
    end = 0
    for row in range(rows):
        set_word(offsets + 8 * row, end)
        for at in range(row * width, (row + 1) * width):
            place = word(places + 8 * at)
            start = word(starts + 8 * place)
            own = word(starts + 8 * (place + 1)) - start
            copy(data + end, word(texts + X_BYTES) + start, own)
            end += own
    set_word(offsets + 8 * rows, end)
    return True


@kernel
def lay_outputs(state: int, fused: int, rows: int) -> bool:
    """Says where the rows of each output are, for the answers; false if there is no memory."""
    buffers, table = word(state + T_BUFFERS), word(word(fused + U_ANSWERS) + W_OUTPUTS)
    for number in range(word(fused + U_OUTPUTS)):
        output = table + number * OUTPUT_BYTES
        row_bytes, texts = word(fused + U_ROW_BYTES + 8 * number), word(fused + U_TEXTS + 8 * number)
        if texts and not spell(state, number, texts, rows, row_bytes // 8):
            return False
        place = TEXT_BUFFER + number if texts else number
        set_word(output + A_DATA, word(buffers + place * BLOCK_BYTES + B_DATA))
        set_word(output + A_ROW_BYTES, row_bytes)
        set_word(output + A_OFFSETS, word(buffers + (START_BUFFER + number) * BLOCK_BYTES + B_DATA) if texts else 0)
    return True


@kernel
def count_answers(state: int, fused: int, rows: int) -> bool:
    """Counts what was answered; false, and nothing is counted, if a class is not known."""
    answers, how = word(fused + U_ANSWERS), word(fused + U_PREDICTED)
    outputs, is_drift = word(answers + W_OUTPUTS), word(answers + W_REPEATED) == 0
    if how != NOTHING:
        number = word(fused + U_PREDICTED_OUTPUT)
        data = word(outputs + number * OUTPUT_BYTES + A_DATA)
        if word(fused + U_CLASS_OF_TEXT):
            data = word(word(state + T_BUFFERS) + number * BLOCK_BYTES + B_DATA)
        if not count_classes(fused, how, data, rows, is_drift):
            return False
    if is_drift:
        count_numbers(fused, outputs, rows)
    return True


@kernel
def finish(state: int, fused: int, features: int, infer: int) -> int:
    """Answers a batch whose outputs are laid and that the answers know, and counts it; what is left to Python.

    Its features took `features`, and its model `infer`.
    """
    answers = word(fused + U_ANSWERS)
    rows = word(answers + W_ROWS)
    set_word(answers + W_COMPUTED, (features + infer) // 1000)
    set_word(answers + W_FEATURES, features)
    set_word(answers + W_INFER, infer)
    done = answer(answers)
    if done == NONE:
        return TO_FAIL
    count_stages(fused, word(answers + W_LATENCY), done, rows, word(answers + W_ENDED), features, infer)
    if not count_answers(state, fused, rows):
        return TO_COUNT
    return TO_FINISH if word(answers + W_TOO_LARGE) else 0


@kernel
def learn_cost(fused: int, lane: int, rows: int, took: int) -> int:
    """Learns from what a batch took, where that matters."""
    if word(lane + L_TIMED):
        learn(word(fused + U_COST), rows, took * 1e-9)
        tell_cost(fused, lane)
    return 0


@kernel
def compute(state: int, lane: int, fused: int, rows: int, featured: int) -> int:
    """Runs a batch, and writes when its features were there; what is left to Python."""
    left = run_features(state, lane, fused, rows) if word(fused + U_FEATURES) else 0
    set_word(featured, clock_ns(word(state + T_CLOCK)))
    return left or run_model(state, lane, fused, rows)


@kernel
def run_batch(state: int, lane: int, fused: int, count: int, began: int, opened: int) -> int:
    """Runs the batch that was taken, answers and counts it; what is left to Python.

    It began at `began` by the reactor's clock, when that of `clock_ns` was `opened`.
    """
    batch, rows, clock = word(state + T_BATCH), word(lane + L_TAKEN_ROWS), word(state + T_CLOCK)
    if not is_usual(state, lane, fused, count, rows, opened):
        return TO_RUN
    started = clock_ns(clock)
    # The supervisor sees there which version runs, should the worker hang or die.
    set_word(word(fused + U_RUNNING), started)
    left = compute(state, lane, fused, rows, clock + 16)
    featured, ended = word(clock + 16), clock_ns(clock)
    set_word(word(fused + U_RUNNING), 0)
    if left:
        return left
    if not lay_outputs(state, fused, rows):
        return TO_FAIL
    answers = word(fused + U_ANSWERS)
    set_word(answers + W_BATCH, batch)
    set_word(answers + W_COUNT, count)
    set_word(answers + W_ROWS, rows)
    set_word(answers + W_REPEATED, word(lane + L_REPEATED))
    set_word(answers + W_BEGAN, began)
    set_word(answers + W_ENDED, began + ended - opened)
    # A graph alone has no features, as others count it too.
    features = featured - started if word(fused + U_FEATURES) else 0
    left = finish(state, fused, features, ended - featured)
    if left != TO_FAIL:
        if word(fused + U_TO_PASS):
            add_to(word(fused + U_TO_PASS), -count)
        if word(fused + U_COPIES):
            add_to(word(fused + U_COPIES), -1)
            add_to(word(fused + U_COPIES) + 8, rows)
        learn_cost(fused, lane, rows, clock_ns(clock) - opened)
    if left == 0:
        end_batch(state, batch, count)
    return left


@kernel
def serve_lane(state: int, lane: int, number: int, now: int) -> int:
    """Runs a batch of a fused lane; what is left to Python."""
    fused, left = word(lane + L_FUSED), 0
    set_word(lane + L_LEFT, 0)
    if word(lane + L_REQUESTS):
        opened = clock_ns(word(state + T_CLOCK))
        count = gather(state, number, word(lane + L_LARGEST), MOST_REQUESTS, word(state + T_BATCH), now)
        set_word(state + T_BATCH_COUNT, count)
        if count:
            left = run_batch(state, lane, fused, count, now, opened)
    waiting = word(fused + U_WAITING)
    set_word(waiting, word(lane + L_ROWS) + word(lane + L_OTHER_ROWS) + word(fused + U_BESIDE_ROWS))
    set_word(waiting + 8, word(lane + L_REQUESTS) + word(lane + L_OTHER_REQUESTS) + word(fused + U_BESIDE_REQUESTS))
    if word(lane + L_REQUESTS):
        touch(state, lane)
    return left


@kernel
def end_pass(state: int) -> None:
    """Keeps the lanes that were not looked at, and those in which something has changed meanwhile, for the next pass."""
    touched, at, count = word(state + T_TOUCHED), word(state + T_TOUCHED_AT), word(state + T_TOUCHED_COUNT)
    move(touched, touched + 8 * at, 8 * (count - at))
    set_word(state + T_TOUCHED_COUNT, count - at)
    set_word(state + T_TOUCHED_AT, 0)
    set_word(state + T_TOUCHED_END, 0)


@kernel
def serve(state: int, now: int, most: int) -> int:
    """Goes through the lanes in which something has changed, and runs a batch of each that is fused.

    One more than the number of a lane that Python is to look at, with the reason in `T_OUTCOME`, and then it goes on; 0 when a
    pass is over. It ends early after `most` nanoseconds, or when there are many replies to be sent.
    """
    touched, clock = word(state + T_TOUCHED), word(state + T_CLOCK)
    if word(state + T_TOUCHED_END) == 0:
        set_word(state + T_TOUCHED_END, word(state + T_TOUCHED_COUNT))
    began = clock_ns(clock)
    passed = 0
    while word(state + T_TOUCHED_AT) < word(state + T_TOUCHED_END):
        if passed > most or word(state + T_BLOCK_SIZE) > MOST_REPLY_BYTES:
            break
        at = word(state + T_TOUCHED_AT)
        set_word(state + T_TOUCHED_AT, at + 1)
        number = word(touched + 8 * at)
        lane = word(state + T_LANES) + number * LANE_BYTES
        set_word(lane + L_IS_TOUCHED, 0)
        left = serve_lane(state, lane, number, now + passed) if word(lane + L_FUSED) else TOUCHED
        if left:
            set_word(state + T_OUTCOME, left)
            return number + 1
        passed = clock_ns(clock) - began
    end_pass(state)
    return 0
