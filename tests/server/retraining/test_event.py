import json

from penstock_server.retraining import event
from penstock_server.retraining.signals import Estimate, SignalledAlarm, Signals
from penstock_server.retraining.state import RetrainingCall

CALL = RetrainingCall("a1", "drift", "hook", "3", "abc", ("3",), "'age' has drifted for 2.0 h", 1_800_000_000.25)


def test_an_event_says_what_and_why() -> None:
    signals = Signals("fraud", "3", accuracy=Estimate(0.8, 0.7, 0.9), alarms=(SignalledAlarm("age", 1_799_992_800.0),))
    made = event.event_of(CALL, signals, rows=7, labels=0, link="https://mlflow/x")
    assert json.loads(made.to_json()) == {
        "type": "penstock.retraining.requested",
        "timestamp": "2027-01-15T08:00:00.250Z",
        "data": {
            "id": "a1",
            "time": "2027-01-15T08:00:00.250Z",
            "model": "fraud",
            "version": "3",
            "rule": "drift",
            "reason": "'age' has drifted for 2.0 h",
            "link": "https://mlflow/x",
            "rows": 7,
            "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9},
            "alarms": {"age": "2027-01-15T06:00:00.000Z"},
        },
    }
    assert json.loads(made.to_json())["data"] == made.to_builtins()


def test_an_example_says_that_it_is_one() -> None:
    assert "nothing calls for retraining" in event.example("fraud", "3", 5.0).reason
