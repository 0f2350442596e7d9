from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_server.errors import NotFoundError, NotReadyError, PenstockError, StandbyError
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan, VersionStatus

ONE: Any = SimpleNamespace(by_key=None)
TWO: Any = SimpleNamespace(by_key=None)
OTHER: Any = SimpleNamespace(by_key=None, of="other files")
STATUSES = {
    "1": VersionStatus("READY"), "2": VersionStatus("READY"),
    "3": VersionStatus("LOADING"), "4": VersionStatus("UNAVAILABLE", "its digest is wrong"),
}  # fmt: skip
MODEL = ServedModel("m", TrafficPlan("1", (Arm("2", 1.0),)), {"1": ONE, "2": TWO}, STATUSES)
STARTING = ServedModel("m", None, {"2": TWO}, STATUSES)


@pytest.mark.parametrize(
    ("version", "expected"), [("", TWO), ("1", ONE), ("2", TWO), ("@champion", ONE), ("@canary", TWO)]
)
def test_a_request_finds_its_executor(version: str, expected: Any) -> None:
    assert MODEL.resolve(version, "customer-7") is expected


def test_each_canary_has_an_alias() -> None:
    plan = TrafficPlan("1", (Arm("2", 0.1), Arm("3", 0.1, "canary-b")), (ShadowArm("2", 1.0, "shadow-x"),))
    model = ServedModel("m", plan, {"1": ONE, "2": TWO}, STATUSES)
    assert model.resolve("@shadow-x", "") is TWO
    with pytest.raises(NotReadyError, match="version 3 is loading"):
        model.resolve("@canary-b", "")
    with pytest.raises(NotFoundError, match="model 'm' has no canary-c now"):
        model.resolve("@canary-c", "")
    assert [model.role(version) for version in "1234"] == ["champion", "canary", "canary", None]


@pytest.mark.parametrize(
    ("model", "version", "kind", "said"),
    [
        (MODEL, "9", NotFoundError, "model 'm' has no version '9'; served now: 1, 2"),
        (MODEL, "3", NotReadyError, "model 'm' version 3 is loading"),
        (MODEL, "4", NotReadyError, "model 'm' version 4 is unavailable: its digest is wrong"),
        (MODEL, "@newest", NotFoundError, "no alias '@newest'; expected one of @champion, @canary, @shadow"),
        (MODEL, "@", NotFoundError, "no alias '@'"),
        (MODEL, "@shadow", NotFoundError, "model 'm' has no shadow now"),
        (STARTING, "", NotReadyError, r"no version ready \(version 4: its digest is wrong\)"),
        (STARTING, "@champion", NotReadyError, "model 'm' has no version ready"),
        (
            ServedModel("m", None, {}, problem="a scikit-learn model"),
            "",
            NotReadyError,
            r"model 'm' has no version ready \(a scikit-learn model\)$",
        ),
        (ServedModel("m", None, {}), "1", NotFoundError, "served now: none yet"),
        (ServedModel("m", None, {}), "", NotReadyError, "model 'm' has no version ready$"),
    ],
)
def test_who_finds_none_learns_why(model: ServedModel, version: str, kind: type[PenstockError], said: str) -> None:
    with pytest.raises(kind, match=said):
        model.resolve(version, "")


def test_an_executor_may_leave_requests_to_others_by_their_keys() -> None:
    leading: Any = SimpleNamespace(by_key={"a": ONE, "b": TWO, "": ONE}.__getitem__)
    model = ServedModel("m", TrafficPlan("1"), {"1": leading})
    assert [model.resolve(version, key) for version, key in (("", "a"), ("1", "b"), ("@champion", ""))] == [
        ONE,
        TWO,
        ONE,
    ]


def test_a_loaded_version_is_found_by_name_before_anything_is_planned() -> None:
    assert STARTING.resolve("2", "") is TWO
    assert not STARTING.is_ready
    assert MODEL.is_ready
    # An ensemble in force whose model is missing.
    assert not ServedModel(
        "m", TrafficPlan("1"), {}, {"1": VersionStatus("UNAVAILABLE", "model 'a' is not there")}
    ).is_ready


@pytest.mark.parametrize(
    ("plan", "roles"),
    [
        (TrafficPlan("1", (Arm("2", 0.1),), (ShadowArm("3"),)), ["champion", "canary", "shadow", None]),
        (TrafficPlan("1", (Arm("2", 0.1),), (ShadowArm("2"),)), ["champion", "canary", None, None]),
        (None, [None] * 4),
    ],
)
def test_a_version_has_its_first_role(plan: TrafficPlan | None, roles: list[str | None]) -> None:
    model = ServedModel("m", plan, {})
    assert [model.role(version) for version in "1234"] == roles


def test_unknown_models_are_told_which_there_are() -> None:
    routing_table = RoutingTable({"b": MODEL, "a": STARTING})
    assert routing_table.model("b") is MODEL
    with pytest.raises(NotFoundError, match="model 'c' is not served; served now: 'a', 'b'"):
        routing_table.model("c")
    with pytest.raises(NotFoundError, match="no model yet"):
        RoutingTable().model("c")


@pytest.mark.parametrize(
    ("models", "is_settled", "is_ready"),
    [
        ([], True, True),
        ([MODEL], True, True),
        ([STARTING], True, False),
        ([MODEL, STARTING], True, True),  # one model that cannot be loaded takes no traffic from the others
        ([STARTING, STARTING], True, False),
        ([MODEL], False, False),
        ([], False, False),
    ],
)
def test_a_server_is_ready_once_settled_unless_nothing_answers(
    models: list[ServedModel], is_settled: bool, is_ready: bool
) -> None:
    table = RoutingTable({str(at): model for at, model in enumerate(models)}, is_settled)
    assert table.is_ready is is_ready


def lazy(state: Any, plan: TrafficPlan | None = None, *, is_on_call: bool = True, **executors: Any) -> ServedModel:
    """A model that is loaded when it is asked for, with its version 1 in this state."""
    return ServedModel("m", plan, executors, {"1": VersionStatus(state)}, is_lazy=True, is_on_call=is_on_call)


@pytest.mark.parametrize("state", ["STANDBY", "LOADING", "UNLOADING"])
@pytest.mark.parametrize("version", ["", "1", "@champion"])
def test_what_is_loaded_when_it_is_asked_for_is_worth_waiting_for(state: str, version: str) -> None:
    with pytest.raises(StandbyError, match="model 'm' is not in memory, and is being loaded") as found:
        lazy(state).resolve(version, "")
    assert found.value.model == "m"
    lazy(state).check_ready(version)
    assert lazy(state).is_ready


def test_what_cannot_be_loaded_is_not_waited_for() -> None:
    for model in (lazy("UNAVAILABLE", is_on_call=False), STARTING):
        with pytest.raises(NotReadyError) as found:
            model.resolve("", "")
        assert type(found.value) is NotReadyError
        with pytest.raises(NotReadyError):
            model.check_ready("")
        assert not model.is_ready
    with pytest.raises(NotFoundError, match="has no version '2'"):
        lazy("STANDBY").check_ready("2")


def test_what_is_not_proven_yet_is_waited_for_and_not_ready() -> None:
    model = lazy("LOADING", is_on_call=False)
    assert not model.is_ready
    for ask in (model.check_ready, lambda version: model.resolve(version, "")):
        with pytest.raises(StandbyError):
            ask("")


def test_a_table_knows_what_is_other_than_in_a_former_one() -> None:
    same, new = ServedModel("same", TrafficPlan("1"), {"1": ONE}), ServedModel("new", None, {})
    former = RoutingTable({"same": same, "m": MODEL, "gone": STARTING})
    for model, replaced, rerouted in (
        (replace(MODEL), False, False),
        (MODEL.with_status("3", VersionStatus("READY")), True, False),
        (replace(MODEL, problem="no files"), True, False),
        (replace(MODEL, is_on_call=True), True, False),
        (replace(MODEL, plan=TrafficPlan("1", (Arm("2", 0.5),))), True, True),
        (replace(MODEL, executors={"1": ONE, "2": OTHER}), True, True),
        (replace(MODEL, executors={"2": TWO}), True, True),
        (MODEL.with_executor("3", ONE), True, True),
    ):
        table = RoutingTable({"new": new, "m": model, "same": same}, is_settled=True)
        others = {"new", "gone"}
        assert table.replaced(former) == others | ({"m"} if replaced else set())
        assert table.rerouted(former) == others | ({"m"} if rerouted else set())
    assert former.replaced(former) == former.rerouted(former) == set()
