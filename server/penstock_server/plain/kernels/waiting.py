"""What waits in a lane: its levels of priority, which requests may wait, and how the others are refused.

Order, admission and limits are those of `batching.queue`. A refusal is an operation of the transport whose trailers lie
ready: it takes no object and no text of its own. Where `batching.queue` might still take a request, such as one that runs to
find out what a batch costs, the general path is to decide.
"""

from typing import Final

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import release, set_word, word
from penstock_server.plain.layout import (
    ENDING_BYTES,
    ENTRY_BYTES,
    FREE,
    FULL,
    G_AT,
    G_CODE,
    G_SIZE,
    L_BASE,
    L_BUSY_UNTIL,
    L_BYTES,
    L_COUNTS,
    L_DELAY,
    L_DELAYED_UNTIL,
    L_ENDINGS,
    L_HALFWAY,
    L_IS_OPEN,
    L_IS_TOUCHED,
    L_LARGEST,
    L_LEVELS,
    L_MAX_BYTES,
    L_MAX_REQUESTS,
    L_MAX_ROWS,
    L_OBJECTIVE,
    L_OTHER_BYTES,
    L_OTHER_REQUESTS,
    L_OTHER_ROWS,
    L_PROBE_AT,
    L_REQUESTS,
    L_ROW,
    L_ROWS,
    L_TIMED,
    L_USUAL_ROWS,
    LANE_BYTES,
    LATE,
    LEVEL_BYTES,
    LEVEL_NS,
    LEVELS,
    MISSED,
    N_ARRIVED,
    N_BEFORE,
    N_DATA,
    N_DEADLINE,
    N_NEXT,
    N_PRIORITY,
    N_ROWS,
    N_SIZE,
    N_SLOT,
    N_STATE,
    NEVER,
    NONE,
    PASSED,
    T_ENTRIES,
    T_ENTRY_OF,
    T_FREE,
    T_FREE_COUNT,
    T_LANES,
    T_REFUSED,
    T_REFUSED_COUNT,
    T_TOUCHED,
    T_TOUCHED_COUNT,
    V_FIRST,
    V_LAST,
    V_REQUESTS,
    V_ROWS,
)
from penstock_server.transport.layout import O_AT, O_KIND, O_MORE, O_SIZE, O_SLOT, OPERATION_BYTES, REFUSE

FITS: Final = -2


@kernel
def add_to(place: int, change: int) -> None:
    set_word(place, word(place) + change)


@kernel
def touch(state: int, lane: int) -> None:
    """Has the lane's owner look at it after this turn."""
    if not word(lane + L_IS_TOUCHED):
        set_word(lane + L_IS_TOUCHED, 1)
        count = word(state + T_TOUCHED_COUNT)
        set_word(word(state + T_TOUCHED) + 8 * count, (lane - word(state + T_LANES)) // LANE_BYTES)
        set_word(state + T_TOUCHED_COUNT, count + 1)


@kernel
def tell(state: int, slot: int, at: int, size: int) -> None:
    """Has the transport end a call with these trailers."""
    count = word(state + T_REFUSED_COUNT)
    operation = word(state + T_REFUSED) + count * OPERATION_BYTES
    set_word(operation + O_KIND, REFUSE)
    set_word(operation + O_SLOT, slot)
    set_word(operation + O_AT, -at)
    set_word(operation + O_SIZE, size)
    set_word(operation + O_MORE, 0)
    set_word(state + T_REFUSED_COUNT, count + 1)


@kernel
def code_of(lane: int, why: int) -> int:
    """GRPC's number for a refusal."""
    return word(word(lane + L_ENDINGS) + why * ENDING_BYTES + G_CODE)


@kernel
def refuse(state: int, lane: int, slot: int, why: int) -> None:
    """Ends a call that is not to be answered, and counts it."""
    ending = word(lane + L_ENDINGS) + why * ENDING_BYTES
    tell(state, slot, word(ending + G_AT), word(ending + G_SIZE))
    add_to(word(word(lane + L_COUNTS) + 8 * why), 1)


@kernel
def take_entry(state: int) -> int:
    """A free entry; there is one."""
    free = word(state + T_FREE_COUNT) - 1
    set_word(state + T_FREE_COUNT, free)
    return word(state + T_ENTRIES) + word(word(state + T_FREE) + 8 * free) * ENTRY_BYTES


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
def level_of(lane: int, priority: int) -> int:
    return word(lane + L_LEVELS) + (priority - 1) * LEVEL_BYTES


@kernel
def count(lane: int, level: int, entry: int, sign: int) -> None:
    """Counts what waits: an entry more, or one less."""
    rows = sign * word(entry + N_ROWS)
    add_to(level + V_REQUESTS, sign)
    add_to(level + V_ROWS, rows)
    add_to(lane + L_REQUESTS, sign)
    add_to(lane + L_ROWS, rows)
    add_to(lane + L_BYTES, sign * word(entry + N_SIZE))


@kernel
def delay_for(lane: int, entry: int) -> None:
    """The next batch is due when this request has waited long enough for others."""
    arrived = word(entry + N_ARRIVED)
    set_word(lane + L_DELAYED_UNTIL, min(word(lane + L_DELAYED_UNTIL), arrived + word(lane + L_DELAY)))
    set_word(lane + L_HALFWAY, min(word(lane + L_HALFWAY), (arrived + word(entry + N_DEADLINE)) // 2))


@kernel
def put_last(lane: int, entry: int) -> None:
    """Adds a request behind all of its level."""
    level = level_of(lane, word(entry + N_PRIORITY))
    last = word(level + V_LAST)
    set_word(entry + N_NEXT, 0)
    set_word(entry + N_BEFORE, last)
    if last:
        set_word(last + N_NEXT, entry)
    else:
        set_word(level + V_FIRST, entry)
    set_word(level + V_LAST, entry)
    count(lane, level, entry, 1)
    if word(lane + L_DELAY):
        delay_for(lane, entry)


@kernel
def take_out(lane: int, entry: int) -> None:
    """Takes a request off its level, wherever it stands."""
    level = level_of(lane, word(entry + N_PRIORITY))
    before, following = word(entry + N_BEFORE), word(entry + N_NEXT)
    if before:
        set_word(before + N_NEXT, following)
    else:
        set_word(level + V_FIRST, following)
    if following:
        set_word(following + N_BEFORE, before)
    else:
        set_word(level + V_LAST, before)
    count(lane, level, entry, -1)


@kernel
def foremost(lane: int) -> int:
    """The request that goes next, 0 if none waits: a level is worth `LEVEL_NS` of waiting."""
    best, best_rank = 0, 0
    for priority in range(1, LEVELS + 1):
        entry = word(level_of(lane, priority) + V_FIRST)
        if entry:
            rank = word(entry + N_ARRIVED) + priority * LEVEL_NS
            if best == 0 or rank < best_rank:
                best, best_rank = entry, rank
    return best


@kernel
def begin_delay(lane: int) -> None:
    """When the next batch is due for those that still wait."""
    if not word(lane + L_DELAY):
        return
    set_word(lane + L_DELAYED_UNTIL, NEVER)
    set_word(lane + L_HALFWAY, NEVER)
    for priority in range(1, LEVELS + 1):
        entry = word(level_of(lane, priority) + V_FIRST)
        while entry:
            delay_for(lane, entry)
            entry = word(entry + N_NEXT)


@kernel
def is_full(lane: int, rows: int, size: int) -> bool:
    """Whether a request does not fit any more. One alone fits, however large: else it could never be served."""
    waiting = word(lane + L_ROWS) + word(lane + L_OTHER_ROWS)
    held = word(lane + L_BYTES) + word(lane + L_OTHER_BYTES)
    return (
        (waiting > 0 and waiting + rows > word(lane + L_MAX_ROWS))
        or (held > 0 and held + size > word(lane + L_MAX_BYTES))
        or word(lane + L_REQUESTS) + word(lane + L_OTHER_REQUESTS) >= word(lane + L_MAX_REQUESTS)
    )


@kernel
def rows_ahead(lane: int, priority: int) -> int:
    """The rows that a new request of this priority would wait for."""
    rows = word(lane + L_OTHER_ROWS)
    for level in range(1, priority + 1):
        rows += word(level_of(lane, level) + V_ROWS)
    return rows


@kernel
def is_in_time(lane: int, priority: int, rows: int, now: int, deadline: int) -> bool:
    """Whether a request would be answered before its deadline without waiting too long for that (`batching.cost`)."""
    set_word(lane + L_TIMED, 1)
    base, row = word(lane + L_BASE), word(lane + L_ROW)
    start = max(now, word(lane + L_BUSY_UNTIL))
    ahead = rows_ahead(lane, priority) + rows
    largest = max(word(lane + L_LARGEST), rows)
    batches = (ahead + largest - 1) // largest
    end = start + (base + row * ahead if batches <= 1 else batches * (base + row * largest))
    own = base + row * rows
    return end < deadline and (word(lane + L_OBJECTIVE) < NEVER or 2 * (end - own - now) <= deadline - now - own)


@kernel
def may_be_probe(lane: int, now: int) -> bool:
    """Whether nothing waits or runs, and it is time to find out again what a batch costs."""
    waiting = word(lane + L_REQUESTS) + word(lane + L_OTHER_REQUESTS)
    return waiting == 0 and word(lane + L_BUSY_UNTIL) == 0 and now >= word(lane + L_PROBE_AT)


@kernel
def why_late(lane: int, arrived: int, deadline: int) -> int:
    """Whether it is the caller's deadline that cannot be kept, or the model's objective."""
    return LATE if deadline < arrived + word(lane + L_OBJECTIVE) else MISSED


@kernel
def is_open(lane: int, rows: int) -> bool:
    """Whether requests of so many rows may wait here."""
    return word(lane + L_IS_OPEN) != 0 and rows <= word(lane + L_USUAL_ROWS)


@kernel
def verdict(lane: int, priority: int, rows: int, size: int, now: int, deadline: int) -> int:
    """`FITS`, why a request is refused, or `NONE` if the general path is to decide."""
    if not is_open(lane, rows):
        return NONE
    if deadline <= now:
        return PASSED
    if deadline < NEVER and not is_in_time(lane, priority, rows, now, deadline):
        return NONE if may_be_probe(lane, now) else why_late(lane, now, deadline)
    return FULL if is_full(lane, rows, size) else FITS
