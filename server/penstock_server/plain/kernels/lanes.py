"""Lanes: what waits, what goes into a batch, and its answers.

`sift` goes through the events of a turn and takes the plain requests; the transport's events that it took are marked, and
Python never sees them. `gather` copies the raw contents of what a batch holds into the blocks that a version takes.
`answer` writes the replies, byte for byte as `prediction.encode` does, and what the transport is to do with them.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.clock import clock_ns, unix_ns
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
from penstock_server.labels.layout import NAMED
from penstock_server.plain.kernels.callers import caller_of, filled, may_have, take_from
from penstock_server.plain.kernels.counts import add_to_sum, count_more, latency_cell
from penstock_server.plain.kernels.draw import drawn
from penstock_server.plain.kernels.records import record
from penstock_server.plain.kernels.scan import begin, hashed, scan, varint, write_varint
from penstock_server.plain.kernels.traces import end_refused, end_span, end_unanswered, keep, look, put_exemplar
from penstock_server.plain.kernels.waiting import (
    FITS,
    add_to,
    begin_delay,
    code_of,
    foremost,
    forget_slot,
    free_entry,
    is_open,
    put_last,
    refuse,
    take_entry,
    take_out,
    tell,
    touch,
    verdict,
    why_late,
)
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
    DEFAULT_LEVEL,
    DOUBLES,
    F_HASH,
    F_ID_AT,
    F_ID_SIZE,
    F_INPUTS,
    F_PRIORITY,
    F_RAW_AT,
    F_ROWS,
    F_SIZE,
    F_TIMEOUT,
    H_EXEMPLARS,
    H_NAMED,
    H_QUEUE,
    H_QUEUE_SUM,
    H_TOTAL,
    H_TOTAL_SUM,
    K_COMPUTED,
    K_NAMES,
    K_QUEUE,
    K_ROWS,
    KEPT_BYTES,
    L_BASE,
    L_BLOCK_COUNT,
    L_BLOCKS,
    L_COUNTS,
    L_LEFT,
    L_OBJECTIVE,
    L_REPEATED,
    L_ROUTED,
    L_ROW,
    L_ROWS,
    L_SEEN,
    L_TAKEN_ROWS,
    LANE_BYTES,
    LAYOUT_BYTES,
    LAYOUT_OUTPUT_BYTES,
    LEFT,
    LEVELS,
    N_ARRIVED,
    N_DATA,
    N_DEADLINE,
    N_ID_AT,
    N_ID_SIZE,
    N_LANE,
    N_PLAN,
    N_PRIORITY,
    N_RAW_AT,
    N_ROWS,
    N_SIZE,
    N_SLOT,
    N_SPAN,
    N_STATE,
    NEVER,
    NONE,
    OUTPUT_BYTES,
    P_CANARIES,
    P_COLUMNS,
    P_HASH,
    P_INPUTS,
    P_LANE,
    P_NEXT,
    P_NUMBER,
    P_ROLE,
    P_SIZE,
    P_SKELETON,
    PLAN_BYTES,
    REASONS,
    ROWS,
    RUNNING,
    SEEN,
    SEEN_BYTES,
    SINGLE_ROWS,
    SINGLES,
    T_BLOCK,
    T_BLOCK_CAPACITY,
    T_BLOCK_SIZE,
    T_BUCKETS,
    T_CALLERS,
    T_CLOCK,
    T_ENTRY_OF,
    T_EXPIRED,
    T_EXPIRED_SIZE,
    T_FREE_COUNT,
    T_LANES,
    T_MAX_BYTES,
    T_METHOD,
    T_PLANS,
    T_REPLIES,
    T_REPLY_COUNT,
    T_SCRATCH,
    T_SKELETON,
    T_STOPPED,
    T_STOPPED_COUNT,
    T_STOPPED_SIZE,
    T_TRACES,
    TEXTS,
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
    W_MOST,
    W_NAMES,
    W_OUTPUTS,
    W_RECORDS,
    W_ROWS,
    W_SCRATCH,
    W_STATE,
    W_TOO_LARGE,
    WAITING,
    WAYS,
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
from penstock_server.tracing.layout import CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE
from penstock_server.transport.layout import (
    CALL,
    CLOSED,
    E_DATA,
    E_DEADLINE,
    E_FLAGS,
    E_KIND,
    E_METHOD,
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
def leave(state: int, entry: int, code: int, now: int) -> None:
    """A caller is gone; what waits for it is given up, and a batch keeps its rows."""
    lane = word(state + T_LANES) + word(entry + N_LANE) * LANE_BYTES
    end_unanswered(state, entry, code, now)
    forget_slot(state, entry)
    if word(entry + N_STATE) == WAITING:
        take_out(lane, entry)
        free_entry(state, entry)
    else:
        set_word(entry + N_STATE, LEFT)
    add_to(word(word(lane + L_COUNTS) + 8 * REASONS), 1)
    add_to(lane + L_LEFT, 1)
    touch(state, lane)


@kernel
def give_up(state: int, slot: int) -> int:
    """Gives up the request of a call; 0 if the call has none."""
    entry = word(word(state + T_ENTRY_OF) + 8 * slot)
    if entry == 0:
        return 0
    leave(state, entry, UNAVAILABLE, clock_ns(word(state + T_CLOCK)))
    return 1


@kernel
def wait(state: int, event: int, plan: int, found: int, now: int, deadline: int, priority: int) -> None:
    """Adds a request to its plan's lane."""
    lane = word(state + T_LANES) + word(plan + P_LANE) * LANE_BYTES
    entry = take_entry(state)
    slot = word(event + E_SLOT)
    set_word(entry + N_STATE, WAITING)
    set_word(entry + N_SLOT, slot)
    set_word(entry + N_LANE, word(plan + P_LANE))
    set_word(entry + N_PLAN, word(plan + P_NUMBER))
    set_word(entry + N_DATA, word(event + E_DATA))
    set_word(entry + N_SIZE, word(event + E_SIZE))
    set_word(entry + N_ROWS, word(found + F_ROWS))
    set_word(entry + N_RAW_AT, word(found + F_RAW_AT))
    set_word(entry + N_ID_AT, word(found + F_ID_AT))
    set_word(entry + N_ID_SIZE, word(found + F_ID_SIZE))
    set_word(entry + N_ARRIVED, now)
    set_word(entry + N_DEADLINE, deadline)
    set_word(entry + N_PRIORITY, priority)
    keep(state, entry)
    set_word(word(state + T_ENTRY_OF) + 8 * slot, entry)
    put_last(lane, entry)


@kernel
def enter(state: int, event: int, plan: int, found: int, now: int) -> bool:
    """Has a request wait, or refuses it; false if the general path is to have it."""
    lane = word(state + T_LANES) + word(plan + P_LANE) * LANE_BYTES
    deadline = min(word(event + E_DEADLINE), now + word(lane + L_OBJECTIVE))
    timeout = word(found + F_TIMEOUT)
    if timeout > 0:
        deadline = min(deadline, now + timeout * 1000)
    priority = word(found + F_PRIORITY)
    if priority <= 0:
        priority = DEFAULT_LEVEL
    why = verdict(lane, priority, word(found + F_ROWS), word(event + E_SIZE), now, deadline)
    if why == NONE or word(state + T_FREE_COUNT) == 0:
        return False
    if why == FITS:
        wait(state, event, plan, found, now, deadline, priority)
    else:
        release(word(event + E_DATA))
        end_refused(state, lane, code_of(lane, why), now)
        refuse(state, lane, word(event + E_SLOT), why)
    touch(state, lane)
    return True


@kernel
def takes(state: int, plan: int, rows: int) -> bool:
    """Whether a plan's lane takes requests of so many rows, or refuses them."""
    return is_open(word(state + T_LANES) + word(plan + P_LANE) * LANE_BYTES, rows)


@kernel
def may_draw(state: int, plan: int, found: int, data: int, size: int) -> bool:
    """Whether every version that may be drawn takes a request.

    What only some of them would take is left to the general path, so that no request is drawn twice.
    """
    rows = word(found + F_ROWS)
    if not takes(state, plan, rows):
        return False
    for _ in range(word(plan + P_CANARIES)):
        plan += PLAN_BYTES
        if not takes(state, plan, rows) or not fits(plan, data, word(found + F_RAW_AT), size, rows):
            return False
    return True


@kernel
def take_call(state: int, event: int, now: int) -> bool:
    """Whether a call's message is plain, and waits in a lane now, or is refused."""
    if word(event + E_METHOD) != word(state + T_METHOD):
        return False
    if word(state + T_STOPPED):
        release(word(event + E_DATA))
        tell(state, word(event + E_SLOT), word(state + T_STOPPED), word(state + T_STOPPED_SIZE))
        add_to(state + T_STOPPED_COUNT, 1)
        return True
    size = word(event + E_SIZE)
    if word(event + E_FLAGS) & IS_COMPRESSED or size <= 0 or size > word(state + T_MAX_BYTES):
        return False
    data = word(event + E_DATA)
    found = word(state + T_SCRATCH)
    if not scan(found, word(state + T_SKELETON), data, size) or word(found + F_PRIORITY) > LEVELS:
        return False
    plan = plan_of(state, found)
    if plan == 0 or word(plan + P_LANE) == NONE or word(plan + P_INPUTS) != word(found + F_INPUTS):
        return False
    if not fits(plan, data, word(found + F_RAW_AT), size, word(found + F_ROWS)):
        return False
    caller = full = 0
    if word(state + T_CALLERS):
        caller = caller_of(state, word(event + E_SLOT))
        if caller == 0 or not may_have(caller, plan, now):
            return False
        full = filled(caller, now)
        if full < 0:
            return False
    if word(plan + P_CANARIES):
        if not may_draw(state, plan, found, data, size):
            return False
        plan = drawn(state, plan, found, data)
    if word(state + T_TRACES):
        look(state, word(event + E_SLOT))
    if not enter(state, event, plan, found, now):
        return False
    if word(plan + P_ROLE) != NAMED:
        lane = word(state + T_LANES) + word(plan + P_LANE) * LANE_BYTES
        add_to(word(lane + L_ROUTED), 1)
    if caller:
        take_from(caller, full)
    return True


@kernel
def take_end(state: int, event: int, entry: int, now: int) -> bool:
    """A call's caller is gone, or its deadline has passed, which it is told; whether nobody else need know."""
    is_closed = word(event + E_KIND) == CLOSED
    leave(state, entry, CANCELLED if is_closed else DEADLINE_EXCEEDED, now)
    if is_closed:
        return False
    tell(state, word(event + E_SLOT), word(state + T_EXPIRED), word(state + T_EXPIRED_SIZE))
    return True


@kernel
def sift(state: int, events: int, count: int, now: int) -> int:
    """Takes the plain requests out of a turn's events; how many events are left for Python."""
    left = 0
    for number in range(count):
        event = events + number * EVENT_BYTES
        kind = word(event + E_KIND)
        is_taken = False
        if kind == CALL:
            is_taken = take_call(state, event, now)
        elif kind in (CLOSED, EXPIRED):
            entry = word(word(state + T_ENTRY_OF) + 8 * word(event + E_SLOT))
            is_taken = entry != 0 and take_end(state, event, entry, now)
        if is_taken:
            set_word(event + E_KIND, TAKEN)
        else:
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
def place_single_rows(block: int, data: int, start: int, rows: int) -> None:
    """Widens rows of float32s; they begin at row `start` of the batch."""
    stride = word(block + B_ROW_BYTES)
    place = word(block + B_DATA) + start * stride
    for at in range(rows * (stride // 8)):
        set_double(place + 8 * at, single_at(data + 4 * at))


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
        elif kind == SINGLE_ROWS:
            place_single_rows(block, data + first, start, rows)
        else:
            place_column(block, column, data + first, start, rows)
        set_word(block + B_SIZE, filled)
        at = first + length
    return True


@kernel
def begin_blocks(lane: int) -> None:
    """Empties the blocks for the next batch."""
    for at in range(word(lane + L_BLOCK_COUNT)):
        block = word(lane + L_BLOCKS) + at * BLOCK_BYTES
        set_word(block + B_SIZE, 0)
        give_back(block + B_DATA, block + B_CAPACITY)


@kernel
def is_late(lane: int, entry: int, start: int, row: int, full: int, rows: int, most_rows: int) -> bool:
    """Whether a request is given up: it would be late even alone, or, with an objective, keep a full batch small."""
    deadline, own = word(entry + N_DEADLINE), word(entry + N_ROWS)
    return deadline <= start + row * own or (deadline <= full and word(lane + L_ROWS) - own + rows >= most_rows)


@kernel
def is_repeat(lane: int, entry: int) -> bool:
    """Whether a request has the rows of a recent one, which it is from now on."""
    table = word(lane + L_SEEN)
    if table == 0:
        return False
    data, size = word(entry + N_DATA) + word(entry + N_RAW_AT), word(entry + N_SIZE) - word(entry + N_RAW_AT)
    if size <= 2 * SEEN_BYTES:
        value = hashed(data, size)
    else:
        value = hashed(data, SEEN_BYTES) ^ 3 * hashed(data + size - SEEN_BYTES, SEEN_BYTES) ^ size
    value |= 1  # 0 is an empty place
    place = table + 8 * WAYS * (value >> 1 & SEEN // WAYS - 1)
    for way in range(WAYS):
        if word(place + 8 * way) == value:
            return True
    move(place + 8, place, 8 * (WAYS - 1))
    set_word(place, value)
    return False


@kernel
def gather(state: int, number: int, most_rows: int, most: int, batch: int, now: int) -> int:
    """Takes the next batch off a lane, up to so many rows and requests: its entries to `batch`, its rows into the blocks.

    How many requests there are. Those that are too late are refused. One that does not fit any more stays for the next
    batch, and so does one that would make the batch late for another in it.
    """
    lane = word(state + T_LANES) + number * LANE_BYTES
    begin_blocks(lane)
    count = rows = repeats = 0
    start, row = now + word(lane + L_BASE), word(lane + L_ROW)
    full = start if word(lane + L_OBJECTIVE) == NEVER else start + row * most_rows
    until = NEVER
    while count < most:
        entry = foremost(lane)
        if entry == 0:
            break
        own, deadline = word(entry + N_ROWS), word(entry + N_DEADLINE)
        if is_late(lane, entry, start, row, full, rows, most_rows):
            take_out(lane, entry)
            why = why_late(lane, word(entry + N_ARRIVED), deadline)
            end_unanswered(state, entry, code_of(lane, why), now)
            refuse(state, lane, word(entry + N_SLOT), why)
            forget_slot(state, entry)
            free_entry(state, entry)
            continue
        end = start + row * (rows + own)
        if count and (rows + own > most_rows or end >= until or end >= deadline):
            break
        if not take_rows(state, lane, entry, rows):
            break
        take_out(lane, entry)
        set_word(entry + N_STATE, RUNNING)
        set_word(batch + 8 * count, entry)
        repeats += is_repeat(lane, entry)
        count += 1
        rows += own
        until = min(until, deadline)
    begin_delay(lane)
    set_word(lane + L_TAKEN_ROWS, rows)
    set_word(lane + L_REPEATED, count > 0 and repeats == count)
    return count


@kernel
def pass_on(state: int, batch: int, count: int, number: int, now: int) -> int:
    """Has the requests of a batch wait in another lane, or refuses them as that lane does; how many are left in the batch.

    Left are those on which the general path is to decide, and those whose callers are gone.
    """
    lane = word(state + T_LANES) + number * LANE_BYTES
    left = 0
    for place in range(count):
        entry = word(batch + 8 * place)
        deadline = min(word(entry + N_DEADLINE), word(entry + N_ARRIVED) + word(lane + L_OBJECTIVE))
        why = NONE
        if word(entry + N_STATE) == RUNNING:
            why = verdict(lane, word(entry + N_PRIORITY), word(entry + N_ROWS), word(entry + N_SIZE), now, deadline)
        if why == FITS:
            set_word(entry + N_STATE, WAITING)
            set_word(entry + N_LANE, number)
            set_word(entry + N_DEADLINE, deadline)
            put_last(lane, entry)
        elif why == NONE:
            set_word(batch + 8 * left, entry)
            left += 1
        else:
            end_unanswered(state, entry, code_of(lane, why), now)
            refuse(state, lane, word(entry + N_SLOT), why)
            forget_slot(state, entry)
            free_entry(state, entry)
    touch(state, lane)
    return left


@kernel
def empty(state: int, number: int, batch: int, most: int) -> int:
    """Takes up to so many requests off a lane, to be refused; how many."""
    lane = word(state + T_LANES) + number * LANE_BYTES
    count = rows = 0
    while count < most:
        entry = foremost(lane)
        if entry == 0:
            break
        take_out(lane, entry)
        set_word(entry + N_STATE, RUNNING)
        set_word(batch + 8 * count, entry)
        count += 1
        rows += word(entry + N_ROWS)
    set_word(lane + L_TAKEN_ROWS, rows)
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
def write_timing(answers: int) -> int:
    """Writes what all replies of a batch say of its time; how many bytes."""
    names, place = word(answers + W_NAMES), word(answers + W_SCRATCH)
    computed = names + K_NAMES
    at = put_parameter(place, computed, word(names + K_COMPUTED), word(answers + W_COMPUTED))
    rows = computed + word(names + K_COMPUTED)
    return put_parameter(at, rows, word(names + K_ROWS), word(answers + W_ROWS)) - place


@kernel
def write_reply(answers: int, place: int, layout: int, entry: int, start: int, said: int) -> int:
    """Writes one reply; where it ends. `said` bytes are what all replies of the batch say of its time."""
    outputs, names = word(answers + W_OUTPUTS), word(answers + W_NAMES)
    waited = max(0, word(answers + W_BEGAN) - word(entry + N_ARRIVED)) // 1000
    at = put(place, word(layout + Y_PREFIX), word(layout + Y_PREFIX_SIZE))
    id_size = word(entry + N_ID_SIZE)
    if id_size:
        set_uint8(at, 0x1A)
        at += 1
        at += write_varint(at, id_size)
        at = put(at, word(entry + N_DATA) + word(entry + N_ID_AT), id_size)
    at = put(at, word(answers + W_SCRATCH), said)
    queue = names + K_NAMES + word(names + K_COMPUTED) + word(names + K_ROWS)
    at = put_parameter(at, queue, word(names + K_QUEUE), waited)
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
def end_traced(state: int, answers: int, entry: int) -> None:
    """Writes the record of a request that is answered and traced, and has the histograms show it."""
    latency = word(answers + W_LATENCY)
    began, ended, arrived = word(answers + W_BEGAN), word(answers + W_ENDED), word(entry + N_ARRIVED)
    features, infer = word(answers + W_FEATURES), word(answers + W_INFER)
    if word(latency + H_EXEMPLARS):
        put_exemplar(latency, 0, latency_cell(latency, ended - arrived), entry, ended - arrived, ended)
        put_exemplar(latency, 1, latency_cell(latency, began - arrived), entry, began - arrived, ended)
        put_exemplar(latency, 2, latency_cell(latency, features), entry, features, ended)
        put_exemplar(latency, 3, latency_cell(latency, infer), entry, infer, ended)
    end_span(state, entry, 0, began, features, infer, ended, word(answers + W_ROWS))


@kernel
def end_answered(state: int, answers: int, entry: int, start: int, waited: int, took: int, now: int) -> None:
    """Counts what an answered request waited and took, and writes what is recorded and traced of it."""
    latency = word(answers + W_LATENCY)
    count_more(word(latency + H_QUEUE), latency_cell(latency, waited), 1)
    cell = latency_cell(latency, took)
    count_more(word(latency + H_TOTAL), cell, 1)
    if word(word(state + T_PLANS) + word(entry + N_PLAN) * PLAN_BYTES + P_ROLE) == NAMED:
        count_more(word(latency + H_NAMED), cell, 1)
    if word(answers + W_RECORDS):
        record(state, word(answers + W_RECORDS), word(answers + W_OUTPUTS), entry, start, now)
    if word(entry + N_SPAN):
        end_traced(state, answers, entry)


@kernel
def add_reply(state: int, entry: int, at: int, size: int) -> None:
    """Adds the operation that sends the reply which was written at this place of the block."""
    operation = word(state + T_REPLIES) + word(state + T_REPLY_COUNT) * OPERATION_BYTES
    set_word(operation + O_KIND, SEND_REPLY)
    set_word(operation + O_SLOT, word(entry + N_SLOT))
    set_word(operation + O_AT, at)
    set_word(operation + O_SIZE, size)
    set_word(operation + O_MORE, 0)
    add_to(state + T_REPLY_COUNT, 1)


@kernel
def answer(answers: int) -> int:
    """Writes the replies of a batch, counts what they took, and adds the operations that send them to `T_REPLIES`.

    How many are answered, -1 if there is no memory.

    An entry that is answered is negative in the batch afterwards. One that still runs has too large a reply, and Python
    says so: `N_RAW_AT` holds its size.
    """
    state, batch, count = word(answers + W_STATE), word(answers + W_BATCH), word(answers + W_COUNT)
    outputs, layouts, layout_count = (
        word(answers + W_OUTPUTS),
        word(answers + W_LAYOUTS),
        word(answers + W_LAYOUT_COUNT),
    )
    began, ended = word(answers + W_BEGAN), word(answers + W_ENDED)
    most, latency = word(answers + W_MOST), word(answers + W_LATENCY)
    now = unix_ns(word(state + T_CLOCK)) if word(answers + W_RECORDS) else 0
    said = write_timing(answers)
    waited_sum = took_sum = 0
    done = start = too_large = 0
    size = word(state + T_BLOCK_SIZE)
    if size == 0:
        give_back(state + T_BLOCK, state + T_BLOCK_CAPACITY)
    for number in range(count):
        entry = word(batch + 8 * number)
        rows = word(entry + N_ROWS)
        if word(entry + N_STATE) == RUNNING:
            layout = layout_of(layouts, layout_count, word(entry + N_PLAN), rows)
            needed = size + reply_bytes(layout, outputs, entry, start)
            if needed > word(state + T_BLOCK_CAPACITY):
                grown = resize(word(state + T_BLOCK), 2 * needed)
                if grown == 0:
                    return NONE
                set_word(state + T_BLOCK, grown)
                set_word(state + T_BLOCK_CAPACITY, 2 * needed)
            place = word(state + T_BLOCK) + size
            end = write_reply(answers, place, layout, entry, start, said)
            if end - place <= most:
                add_reply(state, entry, size, end - place)
                done += 1
                size += end - place
                set_word(state + T_BLOCK_SIZE, size)
                forget_slot(state, entry)
                set_word(entry + N_STATE, LEFT)
                set_word(batch + 8 * number, -entry)
                waited, took = began - word(entry + N_ARRIVED), ended - word(entry + N_ARRIVED)
                end_answered(state, answers, entry, start, waited, took, now)
                waited_sum += waited
                took_sum += took
            else:
                set_word(entry + N_RAW_AT, end - place)
                too_large += 1
        start += rows
    add_to_sum(word(latency + H_QUEUE_SUM), waited_sum)
    add_to_sum(word(latency + H_TOTAL_SUM), took_sum)
    set_word(answers + W_TOO_LARGE, too_large)
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
