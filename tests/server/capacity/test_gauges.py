import pytest
from prometheus_client import CollectorRegistry, generate_latest

from penstock_server.capacity.estimate import Room, ServerCapacity
from penstock_server.capacity.gauges import CapacityCollector


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (ServerCapacity(), {"penstock_capacity_ratio 0.0"}),
        (
            ServerCapacity(0.5, 1000.0, {"m": Room(800.0, 0.25)}),
            {
                "penstock_capacity_ratio 0.5",
                "penstock_capacity_requests_per_second 1000.0",
                'penstock_model_capacity_ratio{model_name="m"} 0.25',
                'penstock_model_capacity_requests_per_second{model_name="m"} 800.0',
            },
        ),
    ],
)
def test_what_is_known_is_shown(known: ServerCapacity, expected: set[str]) -> None:
    registry = CollectorRegistry()
    registry.register(CapacityCollector(lambda: known))
    lines = generate_latest(registry).decode().splitlines()
    assert {line for line in lines if not line.startswith("#")} == expected
