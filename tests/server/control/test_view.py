from itertools import permutations

import pytest

from penstock.names import VersionKey, VersionState
from penstock_server.control.view import Standing, held_by, version_statuses, version_views
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan, VersionStatus
from penstock_server.sources.source import Desired
from tests.server.control.fake_worker import FakeWorker

READY, LOADING, UNLOADING = (VersionStatus(state) for state in ("READY", "LOADING", "UNLOADING"))
FAILED = VersionStatus("UNAVAILABLE", "its digest is wrong")
STATES: list[VersionStatus] = [READY, LOADING, UNLOADING, FAILED]


def fetched(_key: VersionKey) -> Standing:
    return Standing(LOADING)


def worker(
    versions: dict[VersionKey, VersionStatus] | None = None, plans: dict[str, TrafficPlan] | None = None
) -> WorkerProcess:
    made = FakeWorker().end_here
    made.versions, made.plans = versions or {}, plans or {}
    return made


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([], LOADING),
        ([READY], READY),
        ([READY, READY], READY),
        ([READY, LOADING], LOADING),
        ([READY, LOADING, UNLOADING], UNLOADING),
        ([READY, LOADING, FAILED], FAILED),
        ([UNLOADING, FAILED], FAILED),
    ],
)
async def test_a_status_is_the_worst_over_the_workers(held: list[VersionStatus], expected: VersionStatus) -> None:
    for order in permutations(held):
        workers = [worker(), *(worker({("m", "1"): status}) for status in order)]
        assert version_statuses("m", TrafficPlan("1"), [*map(held_by, workers)], fetched) == {"1": expected}


AWAY = VersionStatus("UNAVAILABLE", "away")


@pytest.mark.parametrize("status", STATES)
async def test_a_version_that_cannot_be_fetched_is_unavailable(status: VersionStatus) -> None:
    def away(key: VersionKey) -> Standing:
        return Standing(AWAY if key == ("m", "1") else LOADING)

    found = version_statuses("m", TrafficPlan("1", (Arm("2"),)), [held_by(worker({("m", "2"): status}))], away)
    assert found == {"1": AWAY, "2": status}


async def test_a_version_that_answers_goes_on_while_its_new_files_cannot_be_loaded() -> None:
    reason = "its new files cannot be loaded, and the former ones answer: away"
    found = version_statuses("m", TrafficPlan("1"), [held_by(worker({("m", "1"): READY}))], lambda _: Standing(AWAY))
    assert found == {"1": VersionStatus("READY", reason)}
    noted = worker({("m", "1"): READY})
    noted.notes["m", "1"] = "a digest of its new files is wrong"
    found = version_statuses("m", TrafficPlan("1"), [held_by(noted)], fetched)
    assert found == {"1": VersionStatus("READY", "a digest of its new files is wrong")}


async def test_what_is_worth_knowing_of_a_version_is_told_where_it_is_ready() -> None:
    def noted(_key: VersionKey) -> Standing:
        return Standing(LOADING, note="its requests are not batched")

    workers = [worker({("m", "1"): READY, ("m", "2"): LOADING})]
    assert version_statuses("m", TrafficPlan("1", (Arm("2"),)), [*map(held_by, workers)], noted) == {
        "1": VersionStatus("READY", "its requests are not batched"), "2": LOADING,
    }  # fmt: skip


async def test_a_version_that_must_not_answer_is_unavailable_though_it_is_loaded() -> None:
    found = version_statuses(
        "m", TrafficPlan("1"), [held_by(worker({("m", "1"): READY}))], lambda _: Standing(AWAY, True)
    )
    assert found == {"1": AWAY}


async def test_versions_are_those_desired_and_those_held() -> None:
    workers = [worker({("m", "3"): UNLOADING, ("n", "9"): READY}), worker({("m", "1"): READY})]
    assert version_statuses("m", TrafficPlan("1", (Arm("2"),)), [*map(held_by, workers)], fetched) == {
        "1": READY, "2": LOADING, "3": UNLOADING,
    }  # fmt: skip
    assert version_statuses("m", None, [*map(held_by, workers)], fetched) == {"3": UNLOADING, "1": READY}


async def test_views_tell_roles_weights_and_problems() -> None:
    desired = Desired(
        {"m": TrafficPlan("2", (Arm("3", 0.5),), (ShadowArm("3"),)), "n": TrafficPlan()},
        {"m": "the registry refuses", "n": "no champion"},
    )
    versions = {("m", "1"): READY, ("m", "2"): LOADING, ("m", "3"): READY, ("a", "9"): FAILED}
    workers = [worker(versions, {"m": TrafficPlan("1", (Arm("3", 0.25),), (ShadowArm("3"),))}), worker(versions)]
    views = version_views(desired, workers, fetched)
    found: list[tuple[str, str, VersionState, tuple[str, ...], float | None, str]] = [
        (one.model, one.version, one.state, one.roles, one.weight, one.reason) for one in views
    ]
    assert found == [
        ("a", "9", "UNAVAILABLE", (), None, "its digest is wrong"),
        ("m", "1", "READY", ("champion",), None, "the registry refuses"),
        ("m", "2", "LOADING", (), None, "the registry refuses"),
        ("m", "3", "READY", ("canary", "shadow"), 0.25, "the registry refuses"),
    ]


async def test_while_plans_change_from_worker_to_worker_a_version_has_the_roles_of_all() -> None:
    versions = {("m", "1"): READY, ("m", "2"): READY}
    workers = [worker(versions, {"m": TrafficPlan("2")}), worker(versions, {"m": TrafficPlan("1", (Arm("2", 0.1),))})]
    views = version_views(Desired({"m": TrafficPlan("2")}), workers, fetched)
    assert [(one.version, one.roles, one.weight) for one in views] == [
        ("1", ("champion",), None), ("2", ("champion", "canary"), 0.1),
    ]  # fmt: skip
