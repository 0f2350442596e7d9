from collections.abc import Callable
from typing import Any

import pytest
from grpc_health.v1 import health_pb2 as pb

from penstock_server.errors import InvalidInputError, NotFoundError, OverloadedError
from penstock_server.prediction.routing_table import RoutingTable
from penstock_server.services.health import MAX_WATCHERS, Health

SERVING, NOT_SERVING, UNKNOWN = (
    pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING, pb.HealthCheckResponse.SERVICE_UNKNOWN,
)  # fmt: skip
INFERENCE = "inference.GRPCInferenceService"


@pytest.fixture
def health(predictor: Any) -> Health:
    return Health(predictor)


def asked(service: str) -> bytes:
    message: bytes = pb.HealthCheckRequest(service=service).SerializeToString()
    return message


def status_in(message: bytes) -> int:
    return int(pb.HealthCheckResponse.FromString(message).status)


def watch(health: Health, call: Any, service: str) -> Callable[[bytes | None], None]:
    receive = health.methods.streams["/grpc.health.v1.Health/Watch"](call)
    receive(asked(service))
    receive(None)
    return receive


@pytest.mark.parametrize(
    ("models", "service", "expected"),
    [
        ({"m": "1", "n": "1"}, "", SERVING),
        ({"m": "1", "n": "1"}, INFERENCE, SERVING),
        ({"m": "1", "n": ""}, "", SERVING),
        ({"m": "", "n": ""}, "", NOT_SERVING),
        ({"m": "1", "n": ""}, "m", SERVING),
        ({"m": "1", "n": ""}, "n", NOT_SERVING),
        ({"m": "1", "is_settled": False}, "", NOT_SERVING),
        ({"m": "1", "is_settled": False}, "m", SERVING),
        ({}, "", SERVING),
    ],
)
def test_check(
    health: Health, predictor: Any, routing_table_of: Any, fake_call: Any, models: Any, service: str, expected: int
) -> None:
    predictor.routing_table = routing_table_of(**models)
    call = fake_call()
    health.methods.unary["/grpc.health.v1.Health/Check"](asked(service), call)
    assert status_in(call.answer) == expected


def test_unknown_services_are_not_found(health: Health, fake_call: Any) -> None:
    with pytest.raises(NotFoundError, match="no service or model 'z'"):
        health.check(asked("z"), fake_call())
    with pytest.raises(InvalidInputError, match="the message is not a HealthCheckRequest"):
        health.check(b"\xff", fake_call())


def test_before_anything_is_known_nothing_serves(health: Health, predictor: Any) -> None:
    predictor.routing_table = RoutingTable()
    assert health.status("") == NOT_SERVING


def test_watchers_hear_of_changes_alone(health: Health, predictor: Any, routing_table_of: Any, fake_call: Any) -> None:
    calls = {service: fake_call() for service in ("", "m", "z")}
    for service, call in calls.items():
        watch(health, call, service)
    for models in ({"m": "1"}, {"m": "2"}, {"m": ""}, {"z": "1"}):
        predictor.routing_table = routing_table_of(**models)
        health.changed()
    heard = {service: [status_in(message) for message in call.sent] for service, call in calls.items()}
    assert heard == {
        "": [SERVING, NOT_SERVING, SERVING],
        "m": [SERVING, NOT_SERVING, UNKNOWN],
        "z": [UNKNOWN, SERVING],
    }
    assert not any(call.is_over for call in calls.values())


def test_a_drain_ends_watches_and_serves_nothing(health: Health, predictor: Any, fake_call: Any) -> None:
    call, late = fake_call(), fake_call()
    watch(health, call, "m")
    health.drain()
    assert [status_in(message) for message in call.sent] == [SERVING, NOT_SERVING]
    assert call.answer is None
    watch(health, late, "m")
    assert [status_in(message) for message in late.sent] == [NOT_SERVING]
    assert health.status("") == NOT_SERVING


def test_watchers_that_left_are_dropped(health: Health, fake_call: Any) -> None:
    for _ in range(100):
        call = fake_call()
        watch(health, call, "m")
        call.leave()
    stays = fake_call()
    watch(health, stays, "m")
    assert len(health._watchers) == 1


def test_only_a_bounded_number_of_watches_is_open(health: Health, fake_call: Any) -> None:
    calls = [fake_call() for _ in range(MAX_WATCHERS)]
    for call in calls:
        watch(health, call, "m")
    with pytest.raises(OverloadedError, match=f"{MAX_WATCHERS} health watches are open already"):
        watch(health, fake_call(), "m")
    calls[7].leave()
    watch(health, fake_call(), "m")


def test_checks_are_answered_during_a_drain(health: Health, fake_call: Any) -> None:
    check = "/grpc.health.v1.Health/Check"
    assert health.methods.during_drain == {check}
    health.drain()
    call = fake_call()
    health.methods.unary[check](asked("m"), call)
    assert status_in(call.answer) == NOT_SERVING


def test_names_are_bounded(health: Health, fake_call: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected at most 65536"):
        health.check(asked("m" * 70_000), fake_call())


def test_a_watch_hears_its_first_message_only(health: Health, fake_call: Any) -> None:
    call = fake_call()
    receive = watch(health, call, "m")
    receive(asked("n"))
    assert len(call.sent) == 1
