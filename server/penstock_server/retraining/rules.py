"""Whether a rule calls for retraining now, and why or why not. Pure: signals, state and time in, a decision out.

Three things hold a rule back: its cooldown, a retraining of the model that is under way, and the most calls of a day. A
retraining is under way until another version of the model appears, its command has ended, or it has taken too long.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from penstock_server.retraining.settings import DAY_S, RetrainingRuleSettings, RetrainingSettings
from penstock_server.retraining.signals import Estimate, Signals
from penstock_server.retraining.state import ModelState, Outcome, RetrainingCall

FAILED_PAUSE_S: Final = 600.0
"""A call that failed is followed by another one no sooner, and twice as late after each further failure, up to the cooldown."""


@dataclass(frozen=True, slots=True)
class RuleDecision:
    """What follows from a rule for a model.

    Attributes:
        is_met: its conditions hold.
        reason: a sentence that says which of them hold, or how far those that do not are from it.
        held: why nothing is called for although they hold, in a sentence; "" if it is.
    """

    rule: str
    model: str
    is_met: bool
    reason: str
    held: str = ""

    @property
    def calls(self) -> bool:
        """Whether retraining is called for."""
        return self.is_met and not self.held


def seen(state: ModelState, signals: Signals, now_s: float) -> ModelState:
    """The state after a look at the signals: another champion begins anew, and counts that began anew go on."""
    if (state.version, state.identity) != (signals.version, signals.identity):
        state = ModelState(signals.version, signals.identity, now_s, calls=state.calls)
    labels = signals.labels or 0
    return msgspec.structs.replace(
        state,
        rows=state.rows + _new(state.last_rows, signals.rows),
        labels=state.labels + _new(state.last_labels, labels),
        last_rows=signals.rows,
        last_labels=labels,
    )


def _new(last: int, now: int) -> int:
    return now - last if now >= last else now


def settled(state: ModelState, signals: Signals, now_s: float, flight_s: float) -> ModelState:
    """The state with the calls ended that are under way no more, as another version came or they took too long."""
    for call in state.calls:
        # A command that runs has its own end, and the version that it registers may come before that.
        if call.is_open and call.outcome in ("sent", "unknown"):
            came = _came(call, signals)
            if came:
                state = state.replaced(_ended(call, "done", f"version {', '.join(came)} came", now_s))
            elif now_s - call.at_s >= flight_s:
                state = state.replaced(_ended(call, call.outcome, f"no version came within {_span(flight_s)}", now_s))
    return state


def _came(call: RetrainingCall, signals: Signals) -> list[str]:
    """The versions that came since a call; the one that it is about with other files too.

    A lower number came before, though the server that called may not have had it: this one may still unload it.
    """
    is_anew = signals.version == call.version and signals.identity != call.identity
    others = {*signals.versions, signals.version} - {*call.known, call.version}
    return sorted(
        {each for each in others if not _is_lower(each, call.version)} | ({call.version} if is_anew else set())
    )


def _is_lower(version: str, other: str) -> bool:
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


def _ended(call: RetrainingCall, outcome: Outcome, detail: str, now_s: float) -> RetrainingCall:
    told = f"{call.detail}; {detail}" if call.detail else detail
    return msgspec.structs.replace(call, outcome=outcome, detail=told, ended_s=now_s)


def decide(name: str, settings: RetrainingSettings, signals: Signals, state: ModelState, now_s: float) -> RuleDecision:
    """What follows from a rule for a model.

    Args:
        name: the rule's.
        settings: those of all rules.
        signals: the model's champion.
        state: after `seen` and `settled`.
        now_s: in seconds since 1970.
    """
    rule = settings.rules[name]
    found = [_CONDITIONS[each](rule, signals, state, now_s) for each in rule.conditions]
    hold = [told for is_met, told in found if is_met]
    is_met = len(hold) == len(found) if rule.combine == "all" else bool(hold)
    reason = " and ".join(hold if is_met else [told for holds, told in found if not holds])
    held = _held(name, rule, settings, state, now_s) if is_met else ""
    return RuleDecision(name, signals.model, is_met, reason, held)


def _held(
    name: str, rule: RetrainingRuleSettings, settings: RetrainingSettings, state: ModelState, now_s: float
) -> str:
    for call in state.calls:
        if call.is_open:
            return f"the retraining that rule {call.rule!r} called for {_span(now_s - call.at_s)} ago is under way"
    own = [call for call in state.calls if call.rule == name]
    if own:
        wait_s = _pause_s(own, settings.cooldown_of(rule)) - (now_s - own[-1].at_s)
        if wait_s > 0:
            after = "failed" if own[-1].outcome == "failed" else "called for it"
            return f"it {after} {_span(now_s - own[-1].at_s)} ago, and waits for another {_span(wait_s)}"
    today = [call for call in state.calls if now_s - call.at_s < DAY_S]
    if len(today) >= settings.per_day:
        return f"retraining of the model was called for {len(today)} times within 24 hours, the most that may be"
    return ""


def _pause_s(calls: list[RetrainingCall], cooldown_s: float) -> float:
    """How long a rule waits after its last call: the cooldown, or less after one that failed."""
    failures = 0
    for call in reversed(calls):
        if call.outcome != "failed":
            break
        failures += 1
    return min(cooldown_s, FAILED_PAUSE_S * 2 ** (failures - 1)) if failures else cooldown_s


Condition = Callable[[RetrainingRuleSettings, Signals, ModelState, float], tuple[bool, str]]
"""Whether a rule's condition holds, and a few words that say so, or what is not yet so."""


def _below(estimate: Estimate | None, bound: float, what: str) -> tuple[bool, str]:
    if estimate is None:
        return False, f"{what} is not known"
    told = f"{what} is {estimate.value:.4g} (95 %: {estimate.low:.4g} to {estimate.high:.4g})"
    if estimate.high < bound:
        return True, f"{told}, below {bound:g}"
    return False, f"{told}, not clearly below {bound:g}"


def _accuracy(rule: RetrainingRuleSettings, signals: Signals, _: ModelState, __: float) -> tuple[bool, str]:
    return _below(signals.accuracy, rule.accuracy_below or 0.0, "accuracy by labels")


def _expected_accuracy(rule: RetrainingRuleSettings, signals: Signals, _: ModelState, __: float) -> tuple[bool, str]:
    return _below(signals.expected_accuracy, rule.expected_accuracy_below or 0.0, "expected accuracy")


def _drift_alarm(rule: RetrainingRuleSettings, signals: Signals, _: ModelState, now_s: float) -> tuple[bool, str]:
    least_s = rule.drift_alarm_s or 0.0
    if not signals.alarms:
        return False, "no drift alarm is on" if signals.alarms is not None else "drift is not watched"
    first = min(signals.alarms, key=lambda alarm: alarm.since_s)
    lasts_s = max(0.0, now_s - first.since_s)
    told = f"{repr(first.column) if first.column else 'what is predicted'} has drifted for {_span(lasts_s)}"
    return lasts_s >= least_s, told if lasts_s >= least_s else f"{told}, expected {_span(least_s)}"


def _importance(rule: RetrainingRuleSettings, signals: Signals, _: ModelState, __: float) -> tuple[bool, str]:
    found, least = signals.alarmed_importance, rule.alarmed_importance or 0.0
    if found is None:
        return False, "importance of columns is not known"
    told = f"{found:.0%} of the columns' importance lies in columns with a drift alarm"
    return found >= least, told if found >= least else f"{told}, expected {least:.0%}"


def _age(rule: RetrainingRuleSettings, signals: Signals, state: ModelState, now_s: float) -> tuple[bool, str]:
    published_s = state.first_s if signals.published_s is None else signals.published_s
    age_s, least_s = max(0.0, now_s - published_s), (rule.age_days or 0.0) * DAY_S
    told = f"version {signals.version} is {_span(age_s)} old"
    return age_s >= least_s, told if age_s >= least_s else f"{told}, expected {_span(least_s)}"


def _rows(rule: RetrainingRuleSettings, _: Signals, state: ModelState, __: float) -> tuple[bool, str]:
    return _amount(state.rows, rule.rows or 0, "rows were answered")


def _labels(rule: RetrainingRuleSettings, signals: Signals, state: ModelState, __: float) -> tuple[bool, str]:
    if signals.labels is None:
        return False, "labels are not counted"
    return _amount(state.labels, rule.labels or 0, "labels came")


def _amount(found: int, least: int, what: str) -> tuple[bool, str]:
    told = f"{found:,} {what}"
    return found >= least, told if found >= least else f"{told}, expected {least:,}"


_CONDITIONS: Final[dict[str, Condition]] = {
    "accuracy_below": _accuracy,
    "expected_accuracy_below": _expected_accuracy,
    "drift_alarm_s": _drift_alarm,
    "alarmed_importance": _importance,
    "age_days": _age,
    "rows": _rows,
    "labels": _labels,
}


def _span(seconds: float) -> str:
    """A duration for people.

    >>> _span(59), _span(7200), _span(200_000)
    ('59 s', '2.0 h', '2.3 days')
    """
    for unit, size in (("days", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= (2 * size if unit == "days" else size):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
