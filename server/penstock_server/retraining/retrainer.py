"""Looks at the rules, remembers what they called for, and has actions carried out, on a thread of its own.

A call is written down before it is sent. What crashed in between is sent again by those actions whose other side tells
repetitions by the event's id, and counts as under way for the others.

Of several servers with rules for a model one acts, and all know its calls (`Fleet`): whatever changes them takes that server's
turn, and is written for all before anything is sent.
"""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import structlog

from penstock_server.errors import InvalidInputError, PenstockError, UnavailableError
from penstock_server.retraining import actions, rules, state
from penstock_server.retraining.actions import Ended
from penstock_server.retraining.event import Event, event_of
from penstock_server.retraining.record import read_calls, write_calls
from penstock_server.retraining.rules import RuleDecision
from penstock_server.retraining.settings import ActionSettings, Kind, RetrainingSettings
from penstock_server.retraining.signals import Signals
from penstock_server.retraining.state import ModelState, Outcome, RetrainingCall, RetrainingState

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 8
FIRST_RETRY_S: Final = 2.0
LAST_RETRY_S: Final = 60.0
"""How long it takes until a request that was not taken is sent again: at first, and twice as long each time, up to this."""
SAVE_S: Final = 60.0
"""How often the numbers of rows are written down; calls are at once."""
_REPEATABLE: Final[frozenset[Kind]] = frozenset({"webhook", "airflow", "argo"})
"""Those whose other side tells repetitions by the event's id."""


class Running(Protocol):
    """A command that runs, as `actions.Command`."""

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""

    def close(self) -> None:
        """Ends it."""


class Fleet(Protocol):
    """The servers with rules for the same models. Only the thread of the retrainer calls it; calls may block for seconds.

    Attributes:
        look_s: how often a server looks while it waits for its turn, or has it.
        max_bytes: how long a record may be.
    """

    @property
    def look_s(self) -> float: ...

    @property
    def max_bytes(self) -> float: ...

    def records(self) -> Mapping[str, str]:
        """The calls of each model as the servers share them, as `record.write_calls` writes them."""

    def hold(self, model: str) -> str:
        """Takes this server's turn to act for a model, or keeps it: "" if it has it, else why it has not.

        Raises:
            PenstockError: nobody knows whose turn it is.
        """

    def is_held(self, model: str) -> bool:
        """Whether it is this server's turn at this moment."""

    def write(self, model: str, before: str, after: str) -> None:
        """Replaces a model's record, at its turn.

        Raises:
            PenstockError: it cannot be, or another one stands there than before; then nothing is written.
        """

    def release(self, model: str) -> None:
        """Gives the turn back, if this server has it."""


class Alone:
    """A server that shares its models' calls with no other one."""

    look_s = inf
    max_bytes = inf

    def records(self) -> Mapping[str, str]:
        return {}

    def hold(self, _model: str) -> str:
        return ""

    def is_held(self, _model: str) -> bool:
        return True

    def write(self, _model: str, _before: str, _after: str) -> None:
        pass

    def release(self, _model: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of a model's retraining now.

    Attributes:
        decisions: what follows from each rule.
        state: what is remembered.
    """

    decisions: tuple[RuleDecision, ...]
    state: ModelState


@dataclass(frozen=True, slots=True)
class RetrainingStatus:
    """What is known of all models with rules, by name, and how often something became of a call: by model, rule and outcome."""

    models: Mapping[str, ModelStatus]
    totals: Mapping[tuple[str, str, Outcome], int]
    enabled: bool = True

    def to_json(self) -> bytes:
        """As /v1/retraining shows it."""
        models = [
            {
                "model": name,
                "version": one.state.version,
                "rows": one.state.rows,
                "labels": one.state.labels,
                "rules": [
                    {
                        "rule": each.rule,
                        "met": each.is_met,
                        "reason": each.reason,
                        "held": each.held,
                        "calls": each.calls,
                    }
                    for each in one.decisions
                ],
                "calls": [msgspec.to_builtins(call) for call in reversed(one.state.calls)],
            }
            for name, one in sorted(self.models.items())
        ]
        return msgspec.json.encode({"enabled": self.enabled, "models": models})


class Retrainer:
    """The thread that has models trained anew.

    Args:
        settings: rules and actions.
        signals: what is known of the champion of each model now; called on this thread.
        file: where it is remembered over restarts; None forgets it.
        fleet: the servers that may act for the same models.
        link: the address of a version in the registry, for people; "" for none.
        clock: seconds since 1970.
        send: tells of an event by HTTP; as `actions.send`.
        start: starts a command; as `actions.Command`.
    """

    def __init__(
        self,
        settings: RetrainingSettings,
        signals: Callable[[], Sequence[Signals]],
        file: Path | None,
        *,
        fleet: Fleet | None = None,
        link: Callable[[str, str], str] = lambda *_: "",
        clock: Callable[[], float] = time.time,
        send: Callable[[ActionSettings, Event, float], str] = actions.send,
        start: Callable[[ActionSettings, Event], Running] = actions.Command,
    ) -> None:
        self._settings = settings
        self._signals = signals
        self._file = file
        self._fleet = fleet or Alone()
        self._link = link
        self._clock = clock
        self._send = send
        self._start = start
        self._running: dict[str, Running] = {}
        self._own: set[str] = set()
        self._turns: set[str] = set()
        self._totals: Counter[tuple[str, str, Outcome]] = Counter()
        kept = state.read(file)
        # Rows are counted anew by each process; labels go on.
        self._models = {model: msgspec.structs.replace(one, last_rows=0) for model, one in kept.models.items()}
        self._written = kept
        self._written_s = clock()
        self._status = RetrainingStatus({}, {}, settings.enabled)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Looks from now on, until `close`."""
        self._thread = threading.Thread(target=self._run, name="retraining", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and the commands that it runs, and writes down how far all is."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(actions.TIMEOUT_S + actions.GRACE_S)
        for command in self._running.values():
            command.close()
        if self._models:
            self._save()
        for model in self._turns:
            self._fleet.release(model)

    def status(self) -> RetrainingStatus:
        """What the last look found; from any thread."""
        return self._status

    def look(self) -> None:
        """Looks at every rule, writes down what is called for, and carries out what is due."""
        self._poll()
        decisions: dict[str, tuple[RuleDecision, ...]] = {}
        signals = {one.model: one for one in self._signals()}
        records = self._fleet.records()
        for model, one in signals.items():
            found = tuple(name for name, rule in self._settings.rules.items() if rule.is_for(model))
            if found:
                decisions[model] = self._look_at(one, found, records.get(model, ""))
        if self._save_if_due():
            for model in decisions:
                self._carry_out(signals[model])
            self._save_if_due()
        told = {model: ModelStatus(made, self._models[model]) for model, made in decisions.items()}
        self._status = RetrainingStatus(told, dict(self._totals), self._settings.enabled)

    def _run(self) -> None:
        while not self._closed.wait(min(self._settings.look_s, self._fleet.look_s if self._turns else inf)):
            try:
                self.look()
            except Exception:
                log.exception("the rules of retraining could not be looked at")

    def _look_at(self, signals: Signals, names: Sequence[str], record: str) -> tuple[RuleDecision, ...]:
        """What follows from these rules for a model; the first that calls is written down, at this server's turn."""
        model = signals.model
        try:
            one = rules.seen(self._known(model, record), signals, self._clock())
        except InvalidInputError as error:
            one = rules.seen(self._models.get(model, ModelState()), signals, self._clock())
            self._models[model] = one
            return tuple(_held(each, str(error)) for each in self._decided(one, signals, names)[1])
        after, made = self._decided(one, signals, names)
        if not self._settings.enabled:
            self._models[model] = rules.settled(one, signals, self._clock(), self._settings.flight_s)
            return tuple(_held(each, "retraining.enabled is false") for each in made)
        if not self._needs_turn(after, record):
            self._give_back(model)
            self._models[model] = after
            return made
        self._turns.add(model)
        try:
            held = self._fleet.hold(model)
            if not held:
                after, made = self._decided(self._taken_over(one), signals, names)
                self._fleet.write(model, record, self._record(after.calls))
        except PenstockError as error:
            held = str(error)
        if held:
            self._models[model] = one
            return tuple(_held(each, held) for each in made)
        self._models[model] = after
        self._tell(signals, one, after)
        return made

    def _known(self, model: str, record: str) -> ModelState:
        """What is remembered, with the calls that servers share. Of its own calls this one knows more than the record."""
        one = self._models.get(model, ModelState())
        if not record:
            return one
        own = {call.id: call for call in one.calls if call.id in self._own}
        shared = [_later(call, own.get(call.id, call)) for call in read_calls(record)]
        known = {call.id for call in shared}
        unwritten = [call for call in own.values() if call.is_open and call.id not in known]
        return msgspec.structs.replace(one, calls=tuple(sorted([*shared, *unwritten], key=lambda call: call.at_s)))

    def _needs_turn(self, after: ModelState, record: str) -> bool:
        """Whether something is to be written, or somebody is needed who carries a call out."""
        is_due = any(call.is_open and call.outcome in ("sending", "running") for call in after.calls)
        try:
            return is_due or self._record(after.calls) != record
        except InvalidInputError:
            return True

    def _record(self, calls: Sequence[RetrainingCall]) -> str:
        return write_calls(calls, self._clock(), self._fleet.max_bytes)

    def _give_back(self, model: str) -> None:
        if model in self._turns:
            self._turns.discard(model)
            self._fleet.release(model)

    def _taken_over(self, one: ModelState) -> ModelState:
        """What another server or a former process left, as far as this one can know it."""
        for call in one.calls:
            action = self._settings.actions.get(call.action)
            is_repeatable = action is not None and action.kind in _REPEATABLE
            is_lost = call.outcome == "running" or (call.outcome == "sending" and not is_repeatable)
            if call.is_open and call.id not in self._own and is_lost:
                detail = "the server that had it under way ended, or hung"
                one = one.replaced(msgspec.structs.replace(call, outcome="unknown", detail=detail))
        return one

    def _decided(
        self, one: ModelState, signals: Signals, names: Sequence[str]
    ) -> tuple[ModelState, tuple[RuleDecision, ...]]:
        """What follows from these rules for a model, and the state then, with the call of the first that calls."""
        now_s = self._clock()
        one = rules.settled(one, signals, now_s, self._settings.flight_s)
        made = []
        for name in names:
            decision = rules.decide(name, self._settings, signals, one, now_s)
            if decision.calls:
                one = one.replaced(self._call(decision, signals, now_s))
            made.append(decision)
        return one, tuple(made)

    def _call(self, decision: RuleDecision, signals: Signals, now_s: float) -> RetrainingCall:
        return RetrainingCall(
            id=uuid.uuid4().hex,
            rule=decision.rule,
            action=self._settings.rules[decision.rule].action,
            version=signals.version,
            identity=signals.identity,
            known=tuple(signals.versions),
            reason=decision.reason,
            at_s=now_s,
        )

    def _tell(self, signals: Signals, before: ModelState, after: ModelState) -> None:
        """Counts and logs what was written down."""
        known = {call.id: call for call in before.calls}
        for call in after.calls:
            if call.id not in known:
                self._own.add(call.id)
                log.warning(
                    "retraining is called for", model=signals.model, version=signals.version, rule=call.rule,
                    reason=call.reason, action=call.action,
                )  # fmt: skip
            elif call.outcome == "done" and known[call.id].outcome != "done":
                self._note(signals.model, call)  # others were counted when they were sent

    def _carry_out(self, signals: Signals) -> None:
        """Does what is due of a model's calls."""
        model = signals.model
        before = self._models[model].calls
        for call in before:
            is_due = call.is_open and call.outcome == "sending" and call.next_s <= self._clock()
            # Looked at for each: whoever hung meanwhile has lost its turn.
            if is_due and self._fleet.is_held(model):
                self._own.add(call.id)
                self._put(model, self._carried_out(call, signals))
        after = self._models[model].calls
        if after != before:
            try:
                self._fleet.write(model, self._record(before), self._record(after))
            except PenstockError as error:
                log.warning("what became of a call is not written yet", model=model, reason=str(error))

    def _carried_out(self, call: RetrainingCall, signals: Signals) -> RetrainingCall:
        now_s = self._clock()
        action = self._settings.actions.get(call.action)
        if action is None:
            return _failed(call, f"the settings have no action {call.action!r} any more", now_s)
        one = self._models[signals.model]
        link = self._link(signals.model, call.version)
        event = event_of(call, signals, rows=one.rows, labels=one.labels, link=link)
        try:
            if action.kind == "command":
                self._running[call.id] = self._start(action, event)
                return msgspec.structs.replace(call, outcome="running", attempts=1)
            told = self._send(action, event, now_s)
        except UnavailableError as error:
            attempts = call.attempts + 1
            if attempts >= ATTEMPTS:
                return _failed(call, f"{error} (tried {attempts} times)", now_s, attempts)
            wait_s = min(FIRST_RETRY_S * 2**call.attempts, LAST_RETRY_S)
            return msgspec.structs.replace(call, attempts=attempts, detail=str(error), next_s=now_s + wait_s)
        except InvalidInputError as error:
            return _failed(call, str(error), now_s, call.attempts + 1)
        return msgspec.structs.replace(call, outcome="sent", detail=told, attempts=call.attempts + 1)

    def _poll(self) -> None:
        """Takes in how commands ended."""
        for model, one in self._models.items():
            for call in one.calls:
                command = self._running.get(call.id)
                if command is not None and (ended := command.poll()) is not None:
                    del self._running[call.id]
                    outcome: Outcome = "done" if ended.is_good else "failed"
                    found = msgspec.structs.replace(call, outcome=outcome, detail=ended.detail, ended_s=self._clock())
                    self._put(model, found)

    def _put(self, model: str, call: RetrainingCall) -> None:
        self._models[model] = self._models[model].replaced(call)
        self._note(model, call)

    def _note(self, model: str, call: RetrainingCall) -> None:
        """Counts and logs what became of a call."""
        what = {"model": model, "rule": call.rule, "action": call.action, "id": call.id, "detail": call.detail}
        if call.outcome == "sending":
            log.warning("the call for retraining was not taken; trying again", **what)
            return
        self._totals[model, call.rule, call.outcome] += 1
        if call.outcome == "failed":
            log.error("the call for retraining failed", **what)
        else:
            log.info("retraining", outcome=call.outcome, **what)

    def _save_if_due(self) -> bool:
        """Writes down calls that changed, and numbers once in a while; False where they cannot be."""
        calls = {model: one.calls for model, one in self._models.items()}
        is_new = calls != {model: one.calls for model, one in self._written.models.items()}
        if is_new or self._clock() - self._written_s >= SAVE_S:
            return self._save()
        return True

    def _save(self) -> bool:
        now = RetrainingState(dict(self._models))
        try:
            state.write(self._file, now)
        except OSError as error:
            log.error("what is known of retraining cannot be written; nothing is called for", reason=str(error))
            return False
        self._written, self._written_s = now, self._clock()
        return True


def _later(shared: RetrainingCall, own: RetrainingCall) -> RetrainingCall:
    """How far a call is by the record, if another server saw its end or may have gone on with it; else as this one knows it.

    Of the same end this one may know more, since texts in a record are cut.
    """
    if not shared.is_open:
        return own if not own.is_open and own.outcome == shared.outcome else shared
    return shared if own.outcome == "sending" else own


def _held(decision: RuleDecision, why: str) -> RuleDecision:
    return replace(decision, held=why) if decision.calls else decision


def _failed(call: RetrainingCall, detail: str, now_s: float, attempts: int | None = None) -> RetrainingCall:
    made: dict[str, Any] = {"outcome": "failed", "detail": detail, "ended_s": now_s}
    return msgspec.structs.replace(call, attempts=call.attempts if attempts is None else attempts, **made)
