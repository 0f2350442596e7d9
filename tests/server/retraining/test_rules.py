from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.retraining import rules
from penstock_server.retraining.settings import DAY_S, ActionSettings, RetrainingRuleSettings, RetrainingSettings
from penstock_server.retraining.signals import Estimate, SignalledAlarm, Signals
from penstock_server.retraining.state import ModelState, RetrainingCall

NOW = 1_800_000_000.0
ACTIONS = {"hook": ActionSettings("command", command=("true",))}
SIGNALS = Signals("fraud", "3", "abc", ("3",), rows=500, published_s=NOW - 10 * DAY_S)
CALL = RetrainingCall("id", "rule", "hook", "3", "abc", ("3",), "since", NOW - 60, "sent")


def decided(
    rule: RetrainingRuleSettings, signals: Signals = SIGNALS, calls: tuple[RetrainingCall, ...] = (), **settings: Any
) -> Any:
    state = rules.seen(ModelState(calls=calls), signals, NOW)
    return rules.decide("rule", RetrainingSettings({"rule": rule}, ACTIONS, **settings), signals, state, NOW)


BAD, GOOD, VAGUE = Estimate(0.8, 0.78, 0.82), Estimate(0.95, 0.94, 0.96), Estimate(0.8, 0.6, 0.95)
DRIFTED = (SignalledAlarm("age", NOW - 7200), SignalledAlarm("", NOW - 60))


@pytest.mark.parametrize(
    ("condition", "signals", "is_met", "words"),
    [
        ({"accuracy_below": 0.9}, {"accuracy": BAD}, True, "accuracy by labels is 0.8 (95 %: 0.78 to 0.82), below 0.9"),
        ({"accuracy_below": 0.9}, {"accuracy": GOOD}, False, "not clearly below 0.9"),
        ({"accuracy_below": 0.9}, {"accuracy": VAGUE}, False, "not clearly below 0.9"),
        ({"accuracy_below": 0.9}, {}, False, "accuracy by labels is not known"),
        ({"expected_accuracy_below": 0.9}, {"expected_accuracy": BAD}, True, "expected accuracy is 0.8"),
        ({"drift_alarm_s": 3600}, {"alarms": DRIFTED}, True, "'age' has drifted for 2.0 h"),
        ({"drift_alarm_s": 3600}, {"alarms": DRIFTED[1:]}, False, "what is predicted has drifted for 1.0 min, expected 1.0 h"),
        ({"drift_alarm_s": 0}, {"alarms": ()}, False, "no drift alarm is on"),
        ({"drift_alarm_s": 0}, {}, False, "drift is not watched"),
        ({"alarmed_importance": 0.2}, {"alarmed_importance": 0.25}, True, "25% of the columns' importance"),
        ({"alarmed_importance": 0.2}, {"alarmed_importance": 0.1}, False, "expected 20%"),
        ({"alarmed_importance": 0.2}, {}, False, "importance of columns is not known"),
        ({"age_days": 10}, {}, True, "version 3 is 10.0 days old"),
        ({"age_days": 11}, {}, False, "expected 11.0 days"),
        ({"age_days": 1}, {"published_s": None}, False, "version 3 is 0 s old, expected 24.0 h"),
        ({"rows": 500}, {}, True, "500 rows were answered"),
        ({"rows": 501}, {}, False, "500 rows were answered, expected 501"),
        ({"labels": 5}, {"labels": 7}, True, "7 labels came"),
        ({"labels": 5}, {}, False, "labels are not counted"),
    ],
)  # fmt: skip
def test_conditions(condition: dict[str, Any], signals: dict[str, Any], is_met: bool, words: str) -> None:
    found = decided(RetrainingRuleSettings("hook", **condition), replace(SIGNALS, **signals))
    assert (found.is_met, found.calls) == (is_met, is_met)
    assert words in found.reason


def test_any_takes_one_condition_and_all_takes_all() -> None:
    one = {"rows": 500, "age_days": 99}
    assert decided(RetrainingRuleSettings("hook", **one)).reason == "500 rows were answered"
    found = decided(RetrainingRuleSettings("hook", combine="all", **one))
    assert not found.is_met
    assert found.reason == "version 3 is 10.0 days old, expected 99.0 days"
    both = decided(RetrainingRuleSettings("hook", combine="all", rows=1, age_days=1))
    assert both.calls
    assert " and " in both.reason


DONE = msgspec.structs.replace(CALL, outcome="done", ended_s=NOW - 30)
FAILED = msgspec.structs.replace(DONE, outcome="failed")
ANOTHER = msgspec.structs.replace(DONE, rule="another")
RULE = RetrainingRuleSettings("hook", rows=1)


@pytest.mark.parametrize(
    ("calls", "settings", "held"),
    [
        ((CALL,), {}, "the retraining that rule 'rule' called for 1.0 min ago is under way"),
        ((msgspec.structs.replace(CALL, rule="another"),), {}, "rule 'another' called for 1.0 min ago is under way"),
        ((DONE,), {}, "it called for it 1.0 min ago, and waits for another 24.0 h"),
        ((DONE,), {"cooldown_s": 60}, ""),
        ((FAILED,), {}, "it failed 1.0 min ago, and waits for another 9.0 min"),
        ((FAILED,) * 2, {}, "waits for another 19.0 min"),
        ((FAILED,) * 9, {"per_day": 99}, "waits for another 24.0 h"),
        ((ANOTHER,) * 4, {}, "called for 4 times within 24 hours"),
        ((ANOTHER,) * 3, {}, ""),
        ((msgspec.structs.replace(DONE, at_s=NOW - DAY_S),) * 9, {}, ""),
    ],
)  # fmt: skip
def test_what_holds_a_rule_back(calls: tuple[RetrainingCall, ...], settings: dict[str, Any], held: str) -> None:
    found = decided(RULE, calls=calls, **settings)
    assert found.is_met
    assert held in found.held
    assert found.calls == (held == "")


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), max_size=30))
def test_rows_are_counted_over_restarts(steps: list[tuple[int, bool]]) -> None:
    """Whatever a process counts, and however often another one begins anew, no row is lost or counted twice."""
    state, counted, total = ModelState(), 0, 0
    for more, is_anew in steps:
        if is_anew:
            counted, state = 0, msgspec.structs.replace(state, last_rows=0)
        counted, total = counted + more, total + more
        state = rules.seen(state, replace(SIGNALS, rows=counted), NOW)
    assert state.rows == total


@pytest.mark.parametrize("change", [{"version": "4"}, {"identity": "other"}])
def test_another_champion_begins_anew_and_keeps_the_calls(change: dict[str, str]) -> None:
    state = rules.seen(ModelState("3", "abc", NOW - 9, rows=70, last_rows=70, calls=(CALL,)), SIGNALS, NOW)
    found = rules.seen(state, replace(SIGNALS, rows=5, **change), NOW + 1)
    assert (found.rows, found.first_s, found.calls) == (5, NOW + 1, (CALL,))


@pytest.mark.parametrize(
    ("outcome", "signals", "later_s", "found", "is_open"),
    [
        ("sent", {}, 0, "sent", True),
        ("sent", {"versions": ("3", "4")}, 0, "done", False),
        ("unknown", {"versions": ("3", "4")}, 0, "done", False),
        ("sent", {"identity": "other"}, 0, "done", False),
        ("sent", {"version": "4"}, 0, "done", False),
        ("sent", {}, 3600, "sent", False),
        ("running", {"versions": ("3", "4")}, 3600, "running", True),
        ("sending", {"versions": ("3", "4")}, 3600, "sending", True),
    ],
)
def test_what_ends_a_retraining(
    outcome: Any, signals: dict[str, Any], later_s: float, found: str, is_open: bool
) -> None:
    state = ModelState("3", "abc", calls=(msgspec.structs.replace(CALL, outcome=outcome),))
    (call,) = rules.settled(state, replace(SIGNALS, **signals), NOW + later_s, flight_s=3600).calls
    assert (call.outcome, call.is_open) == (found, is_open)
    if found == "done" and "identity" not in signals:
        assert call.detail == "version 4 came"
