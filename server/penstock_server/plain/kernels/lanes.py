"""Lanes: what waits, what goes into a batch, and its answers.

`sift` goes through the events of a turn and takes the plain requests; the transport's events that it took are marked, and
Python never sees them. `gather` copies the raw contents of what a batch holds into the blocks that a version takes.
`answer` writes the replies, byte for byte as `prediction.encode` does, and what the transport is to do with them.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import (
    compare,
    copy,
    double_at,
    move,
    release,
    resize,
    set_double,
    set_uint8,
    set_uint32,
    set_word,
    single_at,
    uint32,
    word,
)
from penstock_server.plain.kernels.scan import begin, scan, varint, write_varint
from penstock_server.plain.layout import (
    A_DATA,
    A_OFFSETS,
    A_ROW_BYTES,
    B_CAPACITY,
    B_DATA,
    B_ROW_BYTES,
    B_SIZE,
    BLOCK_BYTES,
    BUCKETS,
    COLUMN_BYTES,
    D_BLOCK,
    D_BYTES,
    D_KIND,
    D_PLACE,
    D_REQUIRED,
    DOUBLES,
    ENTRY_BYTES,
    F_HASH,
    F_ID_AT,
    F_ID_SIZE,
    F_INPUTS,
    F_PRIORITY,
    F_RAW_AT,
    F_ROWS,
    F_SIZE,
    F_TIMEOUT,
    FREE,
    KEPT_BYTES,
    L_BASE,
    L_BLOCK_COUNT,
    L_BLOCKS,
    L_BUSY_UNTIL,
    L_BYTES,
    L_CAPACITY,
    L_HEAD,
    L_IS_OPEN,
    L_IS_TOUCHED,
    L_LARGEST,
    L_LEFT,
    L_MAX_BYTES,
    L_MAX_REQUESTS,
    L_MAX_ROWS,
    L_OTHER_BYTES,
    L_OTHER_REQUESTS,
    L_OTHER_ROWS,
    L_REQUESTS,
    L_RING,
    L_ROW,
    L_ROWS,
    L_TAIL,
    L_TIMED,
    L_USUAL_ROWS,
    LANE_BYTES,
    LAYOUT_BYTES,
    LAYOUT_OUTPUT_BYTES,
    LEFT,
    N_ARRIVED,
    N_DATA,
    N_DEADLINE,
    N_ID_AT,
    N_ID_SIZE,
    N_LANE,
    N_PLAN,
    N_RAW_AT,
    N_ROWS,
    N_SIZE,
    N_SLOT,
    N_STATE,
    NEVER,
    NONE,
    OUTPUT_BYTES,
    P_COLUMNS,
    P_HASH,
    P_INPUTS,
    P_LANE,
    P_NEXT,
    P_NUMBER,
    P_SIZE,
    P_SKELETON,
    PLAN_BYTES,
    ROWS,
    RUNNING,
    SINGLES,
    T_BUCKETS,
    T_ENTRIES,
    T_ENTRY_OF,
    T_FREE,
    T_FREE_COUNT,
    T_LANES,
    T_MAX_BYTES,
    T_METHOD,
    T_PLANS,
    T_SCRATCH,
    T_SKELETON,
    T_TOUCHED,
    T_TOUCHED_COUNT,
    TEXTS,
    W_BATCH,
    W_BEGAN,
    W_BLOCK,
    W_CAPACITY,
    W_COUNT,
    W_LAYOUT_COUNT,
    W_LAYOUTS,
    W_MOST,
    W_OPERATIONS,
    W_OUTPUTS,
    W_SIZE,
    W_STATE,
    W_TIMING,
    WAITING,
    Y_OUTPUT_COUNT,
    Y_OUTPUTS,
    Y_PLAN,
    Y_PREFIX,
    Y_PREFIX_SIZE,
    Y_ROWS,
    YO_HEAD,
    YO_HEAD_SIZE,
    YO_OUTPUT,
)
from penstock_server.transport.layout import (
    CALL,
    CLOSED,
    COUNTED,
    E_DATA,
    E_DEADLINE,
    E_FLAGS,
    E_KIND,
    E_METHOD,
    E_MORE,
    E_SIZE,
    E_SLOT,
    EVENT_BYTES,
    EXPIRED,
    IS_COMPRESSED,
    O_AT,
    O_KIND,
    O_MORE,
    O_SIZE,
    O_SLOT,
    OPERATION_BYTES,
    SEND_REPLY,
    TAKEN,
)


@kernel
def plan_of(state: int, found: int) -> int:
    """The plan of the skeleton that was found; 0 if there is none."""
    bucket = word(found + F_HASH) & BUCKETS - 1
    number = word(word(state + T_BUCKETS) + 8 * bucket)
    size = word(found + F_SIZE)
    while number:
        plan = word(state + T_PLANS) + (number - 1) * PLAN_BYTES
        if (
            word(plan + P_HASH) == word(found + F_HASH)
            and word(plan + P_SIZE) == size
            and compare(word(plan + P_SKELETON), word(state + T_SKELETON), size) == 0
        ):
            return plan
        number = word(plan + P_NEXT)
    return 0


@kernel
def count_texts(data: int, size: int) -> int:
    """How many texts, each behind its length, fill the bytes; -1 if they do not."""
    at = count = 0
    while at + 4 <= size:
        at += 4 + uint32(data + at)
        count += 1
    return count if at == size else NONE


@kernel
def has_missing(kind: int, data: int, rows: int) -> bool:
    """Whether a column has a NaN, or the least of all times, which stands for a missing one."""
    for row in range(rows):
        if kind == DOUBLES:
            value = double_at(data + 8 * row)
            if value != value:  # noqa: PLR0124 - NaN alone
                return True
        elif kind == SINGLES:
            single = single_at(data + 4 * row)
            if single != single:  # noqa: PLR0124
                return True
        elif kind == ROWS and word(data + 8 * row) == -0x7FFFFFFFFFFFFFFF - 1:
            return True
    return False


@kernel
def fits(plan: int, data: int, at: int, size: int, rows: int) -> bool:
    """Whether each raw tensor holds what its plan says for so many rows."""
    for number in range(word(plan + P_INPUTS)):
        column = word(plan + P_COLUMNS) + number * COLUMN_BYTES
        first = begin(data, at + 1, size)
        length = varint(data, at + 1, size)
        kind = word(column + D_KIND)
        if kind == TEXTS:
            if count_texts(data + first, length) != rows:
                return False
        elif length != rows * word(column + D_BYTES) or (
            word(column + D_REQUIRED) and has_missing(kind, data + first, rows)
        ):
            return False
        at = first + length
    return True


@kernel
def ring_place(lane: int, number: int) -> int:
    return word(lane + L_RING) + 8 * (number & word(lane + L_CAPACITY) - 1)


@kernel
def free_entry(state: int, entry: int) -> None:
    """Gives an entry back, with its message."""
    if word(entry + N_DATA):
        release(word(entry + N_DATA))
        set_word(entry + N_DATA, 0)
    set_word(entry + N_STATE, FREE)
    count = word(state + T_FREE_COUNT)
    set_word(word(state + T_FREE) + 8 * count, (entry - word(state + T_ENTRIES)) // ENTRY_BYTES)
    set_word(state + T_FREE_COUNT, count + 1)


@kernel
def forget_slot(state: int, entry: int) -> None:
    """The stream's slot has no entry any more."""
    set_word(word(state + T_ENTRY_OF) + 8 * word(entry + N_SLOT), 0)


@kernel
def uncount(lane: int, entry: int) -> None:
    """An entry waits no longer."""
    set_word(lane + L_REQUESTS, word(lane + L_REQUESTS) - 1)
    set_word(lane + L_ROWS, word(lane + L_ROWS) - word(entry + N_ROWS))
    set_word(lane + L_BYTES, word(lane + L_BYTES) - word(entry + N_SIZE))


@kernel
def drop_left(state: int, lane: int) -> None:
    """Frees the places at the lane's head whose callers are gone: all of them, if nothing waits any more."""
    while word(lane + L_HEAD) < word(lane + L_TAIL):
        entry = word(ring_place(lane, word(lane + L_HEAD)))
        if word(entry + N_STATE) != LEFT:
            return
        pop(lane)
        free_entry(state, entry)


@kernel
def leave(state: int, entry: int) -> None:
    """A caller is gone; what waits for it is given up, and a batch keeps its rows."""
    lane = word(state + T_LANES) + word(entry + N_LANE) * LANE_BYTES
    is_waiting = word(entry + N_STATE) == WAITING
    forget_slot(state, entry)
    set_word(entry + N_STATE, LEFT)
    if is_waiting:
        uncount(lane, entry)
        release(word(entry + N_DATA))
        set_word(entry + N_DATA, 0)
        drop_left(state, lane)
    set_word(lane + L_LEFT, word(lane + L_LEFT) + 1)
    touch(state, lane)


@kernel
def give_up(state: int, slot: int) -> int:
    """Gives up the request of a call; 0 if the call has none."""
    entry = word(word(state + T_ENTRY_OF) + 8 * slot)
    if entry == 0:
        return 0
    leave(state, entry)
    return 1


@kernel
def touch(state: int, lane: int) -> None:
    if not word(lane + L_IS_TOUCHED):
        set_word(lane + L_IS_TOUCHED, 1)
        count = word(state + T_TOUCHED_COUNT)
        set_word(word(state + T_TOUCHED) + 8 * count, (lane - word(state + T_LANES)) // LANE_BYTES)
        set_word(state + T_TOUCHED_COUNT, count + 1)


@kernel
def has_place(lane: int, rows: int, size: int) -> bool:
    """Whether a lane takes a request: it is open, the request is of the usual size, and the queue is not full."""
    if not word(lane + L_IS_OPEN) or rows > word(lane + L_USUAL_ROWS):
        return False
    waiting = word(lane + L_ROWS) + word(lane + L_OTHER_ROWS)
    if waiting and waiting + rows > word(lane + L_MAX_ROWS):
        return False
    held = word(lane + L_BYTES) + word(lane + L_OTHER_BYTES)
    if held and held + size > word(lane + L_MAX_BYTES):
        return False
    if word(lane + L_REQUESTS) + word(lane + L_OTHER_REQUESTS) >= word(lane + L_MAX_REQUESTS):
        return False
    return word(lane + L_TAIL) - word(lane + L_HEAD) < word(lane + L_CAPACITY)


@kernel
def is_in_time(lane: int, rows: int, now: int, deadline: int) -> bool:
    """Whether a request would be answered before its deadline without waiting too long for that (`batching.cost`)."""
    set_word(lane + L_TIMED, 1)
    base, row = word(lane + L_BASE), word(lane + L_ROW)
    start = max(now, word(lane + L_BUSY_UNTIL))
    ahead = word(lane + L_ROWS) + word(lane + L_OTHER_ROWS) + rows
    largest = max(word(lane + L_LARGEST), rows)
    batches = (ahead + largest - 1) // largest
    end = start + (base + row * ahead if batches <= 1 else batches * (base + row * largest))
    own = base + row * rows
    return end < deadline and 2 * (end - own - now) <= deadline - now - own


@kernel
def enter(state: int, event: int, plan: int, found: int, now: int) -> bool:
    """Adds a request to its plan's lane; false if the general path is to have it."""
    lane = word(state + T_LANES) + word(plan + P_LANE) * LANE_BYTES
    rows, size = word(found + F_ROWS), word(event + E_SIZE)
    free = word(state + T_FREE_COUNT)
    if free == 0 or not has_place(lane, rows, size):
        return False
    deadline = word(event + E_DEADLINE)
    timeout = word(found + F_TIMEOUT)
    if timeout > 0:
        deadline = min(deadline, now + timeout * 1000)
    if deadline <= now or (deadline < NEVER and not is_in_time(lane, rows, now, deadline)):
        return False
    number = word(word(state + T_FREE) + 8 * (free - 1))
    set_word(state + T_FREE_COUNT, free - 1)
    entry = word(state + T_ENTRIES) + number * ENTRY_BYTES
    slot = word(event + E_SLOT)
    set_word(entry + N_STATE, WAITING)
    set_word(entry + N_SLOT, slot)
    set_word(entry + N_LANE, word(plan + P_LANE))
    set_word(entry + N_PLAN, word(plan + P_NUMBER))
    set_word(entry + N_DATA, word(event + E_DATA))
    set_word(entry + N_SIZE, size)
    set_word(entry + N_ROWS, rows)
    set_word(entry + N_RAW_AT, word(found + F_RAW_AT))
    set_word(entry + N_ID_AT, word(found + F_ID_AT))
    set_word(entry + N_ID_SIZE, word(found + F_ID_SIZE))
    set_word(entry + N_ARRIVED, now)
    set_word(entry + N_DEADLINE, deadline)
    set_word(word(state + T_ENTRY_OF) + 8 * slot, entry)
    tail = word(lane + L_TAIL)
    set_word(ring_place(lane, tail), entry)
    set_word(lane + L_TAIL, tail + 1)
    set_word(lane + L_REQUESTS, word(lane + L_REQUESTS) + 1)
    set_word(lane + L_ROWS, word(lane + L_ROWS) + rows)
    set_word(lane + L_BYTES, word(lane + L_BYTES) + size)
    touch(state, lane)
    return True


@kernel
def take_call(state: int, event: int, now: int) -> bool:
    """Whether a call's message is plain, and waits in a lane now."""
    if word(event + E_METHOD) != word(state + T_METHOD) or word(event + E_FLAGS) & IS_COMPRESSED:
        return False
    size = word(event + E_SIZE)
    if size <= 0 or size > word(state + T_MAX_BYTES):
        return False
    data = word(event + E_DATA)
    found = word(state + T_SCRATCH)
    if not scan(found, word(state + T_SKELETON), data, size):
        return False
    plan = plan_of(state, found)
    if plan == 0 or word(plan + P_LANE) == NONE or word(plan + P_INPUTS) != word(found + F_INPUTS):
        return False
    if word(found + F_PRIORITY) > 0:
        return False
    if not fits(plan, data, word(found + F_RAW_AT), size, word(found + F_ROWS)):
        return False
    return enter(state, event, plan, found, now)


@kernel
def sift(state: int, events: int, count: int, now: int) -> int:
    """Takes the plain requests out of a turn's events; how many events are left for Python."""
    left = 0
    for number in range(count):
        event = events + number * EVENT_BYTES
        kind = word(event + E_KIND)
        if kind == CALL:
            if take_call(state, event, now):
                set_word(event + E_KIND, TAKEN)
                continue
        elif kind in (CLOSED, EXPIRED):
            entry = word(word(state + T_ENTRY_OF) + 8 * word(event + E_SLOT))
            if entry:
                leave(state, entry)
                set_word(event + E_MORE, COUNTED)
        left += 1
    return left


@kernel
def give_back(data: int, capacity: int) -> None:
    """Frees a buffer that is too large to be kept, by the places of its address and of its size."""
    if word(capacity) > KEPT_BYTES:
        release(word(data))
        set_word(data, 0)
        set_word(capacity, 0)


@kernel
def room(block: int, needed: int) -> bool:
    """Has a block's buffer hold so many bytes."""
    if needed <= word(block + B_CAPACITY):
        return True
    capacity = max(2 * word(block + B_CAPACITY), needed)
    grown = resize(word(block + B_DATA), capacity)
    if grown == 0:
        return False
    set_word(block + B_DATA, grown)
    set_word(block + B_CAPACITY, capacity)
    return True


@kernel
def place_column(block: int, column: int, data: int, start: int, rows: int) -> None:
    """Puts one column of a matrix where it belongs; its rows begin at row `start` of the batch."""
    stride = word(block + B_ROW_BYTES)
    place = word(block + B_DATA) + start * stride + word(column + D_PLACE)
    kind = word(column + D_KIND)
    for row in range(rows):
        if kind == DOUBLES:
            set_word(place + row * stride, word(data + 8 * row))
        elif kind == SINGLES:
            set_double(place + row * stride, single_at(data + 4 * row))
        else:
            set_uint32(place + row * stride, uint32(data + 4 * row))


@kernel
def untake_rows(lane: int, plan: int, data: int, at: int, size: int, start: int, columns: int) -> None:
    """Has the blocks hold `start` rows again, after some columns of a request were copied."""
    for number in range(columns):
        column = word(plan + P_COLUMNS) + number * COLUMN_BYTES
        first = begin(data, at + 1, size)
        length = varint(data, at + 1, size)
        block = word(lane + L_BLOCKS) + word(column + D_BLOCK) * BLOCK_BYTES
        is_text = word(column + D_KIND) == TEXTS
        set_word(block + B_SIZE, word(block + B_SIZE) - length if is_text else start * word(block + B_ROW_BYTES))
        at = first + length


@kernel
def take_rows(state: int, lane: int, entry: int, start: int) -> bool:
    """Copies a request's rows into the blocks of the batch, from row `start` on; false if there is no memory."""
    plan = word(state + T_PLANS) + word(entry + N_PLAN) * PLAN_BYTES
    data, size, rows = word(entry + N_DATA), word(entry + N_SIZE), word(entry + N_ROWS)
    at = word(entry + N_RAW_AT)
    for number in range(word(plan + P_INPUTS)):
        column = word(plan + P_COLUMNS) + number * COLUMN_BYTES
        first = begin(data, at + 1, size)
        length = varint(data, at + 1, size)
        block = word(lane + L_BLOCKS) + word(column + D_BLOCK) * BLOCK_BYTES
        kind = word(column + D_KIND)
        have = word(block + B_SIZE) if kind == TEXTS else start * word(block + B_ROW_BYTES)
        filled = have + length if kind == TEXTS else have + rows * word(block + B_ROW_BYTES)
        if not room(block, filled):
            untake_rows(lane, plan, data, word(entry + N_RAW_AT), size, start, number)
            return False
        if kind in (ROWS, TEXTS):
            copy(word(block + B_DATA) + have, data + first, length)
        else:
            place_column(block, column, data + first, start, rows)
        set_word(block + B_SIZE, filled)
        at = first + length
    return True


@kernel
def pop(lane: int) -> int:
    head = word(lane + L_HEAD)
    entry = word(ring_place(lane, head))
    set_word(lane + L_HEAD, head + 1)
    return entry


@kernel
def gather(state: int, number: int, most_rows: int, most: int, batch: int, now: int) -> int:
    """Takes the next batch off a lane, up to so many rows and requests: its entries to `batch`, its rows into the blocks.

    How many requests there are; behind them in `batch` come the number of those that are too late, and these. One that
    does not fit any more stays for the next batch, and so does one that would make the batch late for another in it.
    """
    lane = word(state + T_LANES) + number * LANE_BYTES
    blocks = word(lane + L_BLOCKS)
    block_count = word(lane + L_BLOCK_COUNT)
    for at in range(block_count):
        block = blocks + at * BLOCK_BYTES
        set_word(block + B_SIZE, 0)
        give_back(block + B_DATA, block + B_CAPACITY)
    late = batch + 8 * (most + 1)
    count = rows = late_count = 0
    start, row = now + word(lane + L_BASE), word(lane + L_ROW)
    until = NEVER
    while word(lane + L_HEAD) < word(lane + L_TAIL) and count < most and late_count < most:
        entry = word(ring_place(lane, word(lane + L_HEAD)))
        if word(entry + N_STATE) == LEFT:
            pop(lane)
            free_entry(state, entry)
            continue
        own, deadline = word(entry + N_ROWS), word(entry + N_DEADLINE)
        end = start + row * (rows + own)
        if deadline <= start + row * own:
            pop(lane)
            uncount(lane, entry)
            set_word(entry + N_STATE, RUNNING)
            set_word(late + 8 * late_count, entry)
            late_count += 1
            continue
        if count and (rows + own > most_rows or end >= until or end >= deadline):
            break
        if not take_rows(state, lane, entry, rows):
            break
        pop(lane)
        uncount(lane, entry)
        set_word(entry + N_STATE, RUNNING)
        set_word(batch + 8 * count, entry)
        count += 1
        rows += own
        until = min(until, deadline)
    drop_left(state, lane)
    set_word(batch + 8 * most, late_count)
    return count


@kernel
def empty(state: int, number: int, batch: int, most: int) -> int:
    """Takes up to so many requests off a lane, to be refused; how many."""
    lane = word(state + T_LANES) + number * LANE_BYTES
    count = 0
    drop_left(state, lane)
    while word(lane + L_HEAD) < word(lane + L_TAIL) and count < most:
        entry = pop(lane)
        uncount(lane, entry)
        set_word(entry + N_STATE, RUNNING)
        set_word(batch + 8 * count, entry)
        count += 1
        drop_left(state, lane)
    return count


@kernel
def layout_of(layouts: int, count: int, plan: int, rows: int) -> int:
    for number in range(count):
        layout = layouts + number * LAYOUT_BYTES
        if word(layout + Y_PLAN) == plan and word(layout + Y_ROWS) == rows:
            return layout
    return 0


@kernel
def output_bytes(output: int, start: int, rows: int) -> int:
    offsets = word(output + A_OFFSETS)
    if offsets:
        return word(offsets + 8 * (start + rows)) - word(offsets + 8 * start)
    return rows * word(output + A_ROW_BYTES)


@kernel
def reply_bytes(layout: int, outputs: int, entry: int, start: int) -> int:
    """The most bytes that a reply takes."""
    size = word(layout + Y_PREFIX_SIZE) + word(entry + N_ID_SIZE) + 256
    for number in range(word(layout + Y_OUTPUT_COUNT)):
        chosen = word(layout + Y_OUTPUTS) + number * LAYOUT_OUTPUT_BYTES
        size += 16 + output_bytes(outputs + word(chosen + YO_OUTPUT) * OUTPUT_BYTES, start, word(entry + N_ROWS))
    return size


@kernel
def put(place: int, data: int, size: int) -> int:
    copy(place, data, size)
    return place + size


@kernel
def put_parameter(place: int, key: int, key_size: int, value: int) -> int:
    """Writes an integer parameter of a reply, as `prediction.encode.IntegerParameter` does; `key` holds its name's bytes."""
    number = place + 64  # written aside, since its size comes before it
    number_size = write_varint(number, value)
    set_uint8(place, 0x22)
    at = place + 1
    at += write_varint(at, key_size + 3 + number_size)
    at = put(at, key, key_size)
    set_uint8(at, 0x12)
    set_uint8(at + 1, 1 + number_size)
    set_uint8(at + 2, 0x10)
    move(at + 3, number, number_size)
    return at + 3 + number_size


@kernel
def write_reply(place: int, layout: int, outputs: int, entry: int, start: int, timing: int, waited: int) -> int:
    """Writes one reply; where it ends. `timing` holds a size and bytes: the batch's, then the name of the queue's time."""
    at = put(place, word(layout + Y_PREFIX), word(layout + Y_PREFIX_SIZE))
    id_size = word(entry + N_ID_SIZE)
    if id_size:
        set_uint8(at, 0x1A)
        at += 1
        at += write_varint(at, id_size)
        at = put(at, word(entry + N_DATA) + word(entry + N_ID_AT), id_size)
    at = put(at, timing + 16, word(timing))
    at = put_parameter(at, timing + 16 + word(timing), word(timing + 8), waited)
    rows = word(entry + N_ROWS)
    for number in range(word(layout + Y_OUTPUT_COUNT)):
        chosen = word(layout + Y_OUTPUTS) + number * LAYOUT_OUTPUT_BYTES
        output = outputs + word(chosen + YO_OUTPUT) * OUTPUT_BYTES
        size = output_bytes(output, start, rows)
        offsets = word(output + A_OFFSETS)
        if offsets:
            set_uint8(at, 0x32)
            at += 1
            at += write_varint(at, size)
            at = put(at, word(output + A_DATA) + word(offsets + 8 * start), size)
        else:
            at = put(at, word(chosen + YO_HEAD), word(chosen + YO_HEAD_SIZE))
            at = put(at, word(output + A_DATA) + start * word(output + A_ROW_BYTES), size)
    return at


@kernel
def missing_layout(batch: int, count: int, layouts: int, layout_count: int) -> int:
    """The first request of a batch whose layout is not there; -1 if none is missing."""
    for number in range(count):
        entry = word(batch + 8 * number)
        if layout_of(layouts, layout_count, word(entry + N_PLAN), word(entry + N_ROWS)) == 0:
            return number
    return NONE


@kernel
def answer(answers: int) -> int:
    """Writes the replies of a batch, and the operations that send them; how many, -1 if there is no memory.

    An entry that is answered is negative in the batch afterwards. One that still runs has too large a reply, and Python
    says so: `N_RAW_AT` holds its size.
    """
    state, batch, count = word(answers + W_STATE), word(answers + W_BATCH), word(answers + W_COUNT)
    outputs, layouts, layout_count = (
        word(answers + W_OUTPUTS),
        word(answers + W_LAYOUTS),
        word(answers + W_LAYOUT_COUNT),
    )
    timing, began, operations = word(answers + W_TIMING), word(answers + W_BEGAN), word(answers + W_OPERATIONS)
    most = word(answers + W_MOST)
    give_back(answers + W_BLOCK, answers + W_CAPACITY)
    done = start = size = 0
    for number in range(count):
        entry = word(batch + 8 * number)
        rows = word(entry + N_ROWS)
        if word(entry + N_STATE) == RUNNING:
            layout = layout_of(layouts, layout_count, word(entry + N_PLAN), rows)
            needed = size + reply_bytes(layout, outputs, entry, start)
            if needed > word(answers + W_CAPACITY):
                grown = resize(word(answers + W_BLOCK), 2 * needed)
                if grown == 0:
                    return NONE
                set_word(answers + W_BLOCK, grown)
                set_word(answers + W_CAPACITY, 2 * needed)
            place = word(answers + W_BLOCK) + size
            waited = max(0, began - word(entry + N_ARRIVED)) // 1000
            end = write_reply(place, layout, outputs, entry, start, timing, waited)
            if end - place <= most:
                operation = operations + done * OPERATION_BYTES
                set_word(operation + O_KIND, SEND_REPLY)
                set_word(operation + O_SLOT, word(entry + N_SLOT))
                set_word(operation + O_AT, size)
                set_word(operation + O_SIZE, end - place)
                set_word(operation + O_MORE, 0)
                done += 1
                size += end - place
                forget_slot(state, entry)
                set_word(entry + N_STATE, LEFT)
                set_word(batch + 8 * number, -entry)
            else:
                set_word(entry + N_RAW_AT, end - place)
        start += rows
    set_word(answers + W_SIZE, size)
    return done


@kernel
def end_batch(state: int, batch: int, count: int) -> int:
    """Gives the entries of a batch back."""
    for number in range(count):
        entry = abs(word(batch + 8 * number))
        if word(entry + N_STATE) == RUNNING:
            forget_slot(state, entry)
        free_entry(state, entry)
    return 0
