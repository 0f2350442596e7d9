"""Plain requests of one worker: what is known of their forms, and the lanes in which they wait.

The first request of a form takes the general path, and what Python found out about it is kept as a plan: which version
answers, and where each raw tensor goes. Those that follow are taken by kernels (`kernels.lanes`), a turn's at once. All of
it belongs to the reactor's thread.
"""

import ctypes
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock_server.errors import DeadlinePassedError, PenstockError
from penstock_server.kernels.compiled import Library
from penstock_server.plain import layout
from penstock_server.plain.callers import PlainCallers
from penstock_server.plain.lane import Form, Lane
from penstock_server.plain.memory import LaneMemory, Port, Tables, address_of

log = structlog.get_logger(__name__)

_INITIAL: Final = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
)  # fmt: skip
"""RFC 7693, 2.6: the words that a hash begins with."""
MAX_BYTES: Final = 128 * 1024
"""Larger messages are decoded on a thread."""
STEP_NS: Final = 500_000
"""How long fused lanes run at most before the transport has its turn, and other threads."""
_NS: Final = 1e-9


def _hashing() -> NDArray[np.int64]:
    """What `kernels.draw` needs to hash a key."""
    area = np.zeros(layout.HASH_BYTES // 8, np.int64)
    area.view(np.uint64)[layout.HASH_INITIAL // 8 : layout.HASH_STATE // 8] = _INITIAL
    return area


def _count_nothing() -> None:
    """Stands where nothing is refused as a whole."""


@dataclass(frozen=True, slots=True)
class RawColumn:
    """What is done with one raw tensor.

    Attributes:
        kind: as `layout` has them: whole rows, one column of a matrix, or texts.
        block: the block of the version's rows that it belongs to.
        place: in bytes from the row's beginning, for one column of a matrix.
        row_bytes: of one row of it; 0 for texts.
        is_required: a missing value in it is refused, which the general path does.
    """

    kind: int
    block: int
    place: int = 0
    row_bytes: int = 0
    is_required: bool = False


class Target(NamedTuple):
    """How a version takes requests of a form.

    Attributes:
        columns: what is done with the raw tensors for this version.
        lane: where its requests wait.
        form: what they share.
    """

    columns: Sequence[RawColumn]
    lane: Lane
    form: Form


@dataclass(frozen=True, slots=True)
class Canaries:
    """The versions that answer shares of the requests that name none.

    Attributes:
        targets: how they take such requests.
        shares: which of them answers, up to which of the 2 ** 53 places, the next from there: 0 is the version whose requests
            these are, 1 the first of the targets. They are in order and have all places.
        salt: of the places of routing keys.
    """

    targets: Sequence[Target]
    shares: Sequence[tuple[int, int]]
    salt: bytes


class PlainRequests:
    """The plans and the lanes of a worker.

    Args:
        kernels: the set `plain`.
        method: the number of the method whose messages are looked at, as the transport numbers methods.
        port: the transport.
    """

    def __init__(self, kernels: Library, method: int, port: Port) -> None:
        self._kernels = kernels
        self._sift = kernels.brief["sift"]
        self._look_up = kernels.brief["look_up"]
        self._give_up = kernels.brief["give_up"]
        self._serve = kernels.brief["serve"]
        self.memory = memory = LaneMemory()
        self._state = state = memory.words(layout.STATE_BYTES // 8)
        entries = memory.words(layout.MAX_ENTRIES, layout.ENTRY_BYTES // 8)
        self.tables = Tables(state, entries, memory.words(layout.MAX_ENTRIES), port)
        self._plans = memory.words(layout.MAX_PLANS, layout.PLAN_BYTES // 8)
        self._buckets = memory.words(layout.BUCKETS)
        self._lane_rows = memory.words(layout.MAX_LANES, layout.LANE_BYTES // 8)
        self._touched = memory.words(2 * layout.MAX_LANES)  # in a pass, those of the next are behind its own
        self._free = memory.kept(np.arange(layout.MAX_ENTRIES - 1, -1, -1, dtype=np.int64))
        for at, value in (
            (layout.T_ENTRIES, self.tables.entries_at),
            (layout.T_ENTRY_OF, self.tables.entry_of.ctypes.data),
            (layout.T_FREE, self._free.ctypes.data),
            (layout.T_FREE_COUNT, layout.MAX_ENTRIES),
            (layout.T_PLANS, self._plans.ctypes.data),
            (layout.T_BUCKETS, self._buckets.ctypes.data),
            (layout.T_LANES, self._lane_rows.ctypes.data),
            (layout.T_TOUCHED, self._touched.ctypes.data),
            (layout.T_SKELETON, memory.words(layout.MAX_SKELETON // 8).ctypes.data),
            (layout.T_MAX_BYTES, MAX_BYTES),
            (layout.T_METHOD, method),
            (layout.T_SCRATCH, memory.words(layout.FOUND_BYTES // 8).ctypes.data),
            (layout.T_HASHING, memory.kept(_hashing()).ctypes.data),
            (layout.T_RANDOM, int.from_bytes(os.urandom(8), "little", signed=True)),
            (layout.T_BATCH, memory.words(layout.MOST_REQUESTS).ctypes.data),
            (layout.T_CLOCK, memory.words(layout.CLOCK_BYTES // 8).ctypes.data),
            (layout.T_BUFFERS, memory.words(layout.BUFFERS, layout.BLOCK_BYTES // 8).ctypes.data),
            (layout.T_ARRAYS, memory.words(layout.MAX_OUTPUTS, layout.ARRAY_BYTES // 8).ctypes.data),
            (layout.T_REPLIES, memory.words(layout.MAX_ENTRIES, layout.OPERATION_BYTES // 8).ctypes.data),
            # Untouched memory takes nothing: it is as large as the largest turn has made it.
            (layout.T_REFUSED, memory.words(layout.MAX_REFUSED, layout.OPERATION_BYTES // 8).ctypes.data),
        ):
            state[at // 8] = value
        self._set_ending(layout.T_EXPIRED, DeadlinePassedError("the deadline has passed"))
        self._count_stopped: Callable[[], None] = _count_nothing
        self._skeleton_at = int(state[layout.T_SKELETON // 8])
        self._found = ctypes.cast(int(state[layout.T_SCRATCH // 8]), ctypes.POINTER(ctypes.c_int64))
        self._cells = state.data
        self._plan_count = 0
        self._plan_memory: list[Any] = []
        # The plans that requests are found by: the model of each, and the lanes in which its requests may wait.
        self._known: dict[int, tuple[str, frozenset[int]]] = {}
        self._lanes: dict[int, Lane] = {}
        self.callers: PlainCallers | None = None
        self._free_lanes = list(range(layout.MAX_LANES - 1, -1, -1))

    def sift(self, events: int, count: int, now_ns: int) -> int:
        """Takes the plain requests out of a turn's events; how many events are left for others."""
        left: int = self._sift(self.tables.address, events, count, now_ns)
        if stopped := self._cells[layout.T_STOPPED_COUNT // 8]:
            self._cells[layout.T_STOPPED_COUNT // 8] = 0
            for _ in range(stopped):
                self._count_stopped()
        self.tables.tell_refused()
        return left

    def _set_ending(self, at: int, error: PenstockError) -> None:
        ending = self.memory.kept(self.tables.ending(error))
        self._state[at // 8 : at // 8 + 2] = address_of(ending), len(ending)

    def step(self, now_s: float) -> bool:
        """Runs a batch of each fused lane, and has the owners of the others look at theirs; whether more is due now."""
        self._cells[layout.T_BATCH_COUNT // 8] = 0
        if not self._cells[layout.T_TOUCHED_COUNT // 8]:
            return False
        now_ns = int(now_s / _NS)
        while number := self._serve(self.tables.address, now_ns, STEP_NS):
            lane = self._lanes.get(number - 1)
            try:
                if lane is not None:
                    lane.look(self._cells[layout.T_OUTCOME // 8])
            except Exception:
                log.exception("plain requests failed")
        self.tables.tell_refused()
        self.tables.send_replies()
        return bool(self._cells[layout.T_TOUCHED_COUNT // 8])

    @property
    def has_run(self) -> bool:
        """Whether the last step took a batch of a fused lane."""
        return bool(self._cells[layout.T_BATCH_COUNT // 8])

    def stop(self, error: PenstockError, count: Callable[[], None]) -> None:
        """Refuses every request from now on, each of them counted; what waits is still answered."""
        self._count_stopped = count
        self._set_ending(layout.T_STOPPED, error)

    def give_up(self) -> list[int]:
        """Gives up all that waits or runs, as if the callers had left; their calls, which are the transport's to end."""
        slots: list[int] = np.flatnonzero(self.tables.entry_of).tolist()
        for slot in slots:
            self._give_up(self.tables.address, slot)
        return slots

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return bool(self._cells[layout.T_FREE_COUNT // 8] == layout.MAX_ENTRIES)

    def open_lane(self, row_bytes: Sequence[int], wake: Callable[[], None]) -> Lane | None:
        """A lane for a version whose blocks have rows of so many bytes (0 for texts); None if there are too many."""
        if not self._free_lanes:
            return None
        number = self._free_lanes.pop()
        row = self._lane_rows[number]
        row[:] = 0
        lane = Lane(self.tables, self._kernels, number, row, row_bytes, wake=wake)
        self._lanes[number] = lane
        return lane

    def close_lane(self, lane: Lane) -> None:
        """Gives a lane back in which nothing waits or runs."""
        # Another one will have its number.
        self._forget([number for number, (_, lanes) in self._known.items() if lane.number in lanes])
        if self._lanes.pop(lane.number, None) is not None:
            self._free_lanes.append(lane.number)
            lane.close()

    def ask_callers(self, streams: int) -> PlainCallers:
        """Takes from now on only requests of callers that are known.

        Args:
            streams: the address of the transport's streams.
        """
        self._state[layout.T_STREAMS // 8] = streams
        self.callers = PlainCallers(self._state, self.memory, self._kernels.brief["hash_of"])
        return self.callers

    def trace(self, streams: int, page: int, region: int) -> None:
        """Has some requests traced from now on.

        Args:
            streams: the address of the transport's streams.
            page: the address of what says which.
            region: the address of where that is written; `tracing.layout` has both.
        """
        words = self.memory.words(layout.TRACES_BYTES // 8)
        words[layout.X_PAGE // 8], words[layout.X_REGION // 8] = page, region
        self._state[layout.T_STREAMS // 8] = streams
        self._state[layout.T_TRACES // 8] = words.ctypes.data

    def plan_of(self, message: bytes) -> int:
        """The number of the plan for messages like this one; -1 if there is none."""
        plan: int = self._look_up(self.tables.address, message, len(message))
        return (plan - self._plans.ctypes.data) // layout.PLAN_BYTES if plan > 0 else layout.NONE

    def is_new(self, message: bytes) -> bool:
        """Whether a message is plain, and nothing is known of its form yet."""
        return bool(self._look_up(self.tables.address, message, len(message)) == 0)

    def learn(
        self,
        message: bytes,
        columns: Sequence[RawColumn],
        lane: Lane | None,
        form: Form | None,
        canaries: Canaries | None = None,
        *,
        model: str,
    ) -> None:
        """Keeps what was found out about a new message, for those of the same form.

        Args:
            message: the message.
            columns: what is done with its raw tensors.
            lane: where they wait; None to leave such requests to the general path, and not to ask again.
            form: what they share.
            canaries: the versions that answer shares of them.
            model: which they are for.
        """
        if not self.is_new(message):
            return
        found = self._found
        inputs = found[layout.F_INPUTS // 8]
        others = () if canaries is None else canaries.targets
        if any(inputs != len(each) for each in (columns, *(target.columns for target in others))):
            lane, others = None, ()
        if self._plan_count + 1 + len(others) > layout.MAX_PLANS:
            self.forget_all()
            if self._plan_count + 1 + len(others) > layout.MAX_PLANS:
                return
        number = self._add_plan(columns, lane, form)
        for target in others:
            self._add_plan(*target)
        skeleton = np.frombuffer(ctypes.string_at(self._skeleton_at, found[layout.F_SIZE // 8]), np.uint8)
        self._plan_memory.append(skeleton)
        bucket = found[layout.F_HASH // 8] & layout.BUCKETS - 1
        shares, salt = np.zeros(0, np.int64), bytes(16)
        if canaries is not None and others:
            shares = np.array([(end, number + which) for end, which in canaries.shares], np.int64)
            salt = canaries.salt
        self._plan_memory.append(shares)
        for at, value in (
            (layout.P_SKELETON, skeleton.ctypes.data),
            (layout.P_SIZE, len(skeleton)),
            (layout.P_HASH, found[layout.F_HASH // 8]),
            (layout.P_NEXT, self._buckets[bucket]),
            (layout.P_CANARIES, len(others)),
            (layout.P_SHARES, shares.ctypes.data),
            (layout.P_SALT, int.from_bytes(salt[:8], "little", signed=True)),
            (layout.P_SALT + 8, int.from_bytes(salt[8:], "little", signed=True)),
        ):
            self._plans[number, at // 8] = value
        self._buckets[bucket] = number + 1
        lanes = (lane, *(target.lane for target in others))
        self._known[number] = model, frozenset(each.number for each in lanes if each is not None)

    def _add_plan(self, columns: Sequence[RawColumn], lane: Lane | None, form: Form | None) -> int:
        """The number of a plan for one version, by which no request is found yet."""
        number = self._plan_count
        self._plan_count += 1
        table = np.array(
            [(each.kind, each.block, each.place, each.row_bytes, each.is_required) for each in columns], np.int64
        ).reshape(-1, layout.COLUMN_BYTES // 8)
        self._plan_memory.append(table)
        plan = self._plans[number]
        plan[:] = 0
        plan[layout.P_LANE // 8] = layout.NONE if lane is None else lane.number
        plan[layout.P_INPUTS // 8] = len(columns)
        plan[layout.P_COLUMNS // 8] = table.ctypes.data
        plan[layout.P_NUMBER // 8] = number
        if lane is not None and form is not None:
            lane.forms[number] = form
            plan[layout.P_ROLE // 8] = form.route.role
            plan.view(np.float64)[layout.P_WEIGHT // 8] = form.route.weight
        return number

    def forget(self, models: Collection[str]) -> None:
        """Forgets the plans of these models: other versions answer from now on. What waits is still answered by its plan."""
        self._forget([number for number, (model, _) in self._known.items() if model in models])

    def _forget(self, numbers: Sequence[int]) -> None:
        """Has no more requests found by these plans. Their numbers are given anew once all plans are forgotten."""
        if len(numbers) == len(self._known):
            self.forget_all()
            return
        for number in numbers:
            plan = self._plans[number]
            row, at = self._buckets, plan[layout.P_HASH // 8] & layout.BUCKETS - 1
            while row[at] != number + 1:
                row, at = self._plans[row[at] - 1], layout.P_NEXT // 8
            row[at] = plan[layout.P_NEXT // 8]
            del self._known[number]

    def forget_all(self) -> None:
        """Forgets every plan, and gives their numbers anew if nothing waits."""
        self._known.clear()
        self._buckets[:] = 0
        if self.callers is not None:
            self.callers.forget_plans()
        if self.is_idle:
            self._plan_count = 0
            self._plan_memory.clear()
            for lane in self._lanes.values():
                lane.forget_forms()
