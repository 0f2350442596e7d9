import pytest

from penstock.names import ROLES
from penstock_tools.demo import setup
from penstock_tools.demo.plan import CANARY_PERCENT, MODEL
from penstock_tools.publish import registry as registries
from penstock_tools.publish.onnx import publish


def answer(*rows):
    return {"models": [{"version": v, "role": r, "state": s, "reason": ""} for v, r, s in rows]}


FULL = (("1", "champion", "READY"), ("2", "canary", "READY"), ("2", "shadow", "READY"))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (FULL, True),
        ((*FULL, ("3", "", "UNLOADING")), True),
        (FULL[:2], False),
        ((), False),
        ((("2", "champion", "READY"), ("1", "canary", "READY"), ("1", "shadow", "READY")), False),
        ((*FULL[:2], ("2", "shadow", "LOADING")), False),
    ],
)
def test_whether_the_server_has_the_roles(rows, expected):
    assert setup.has_roles(answer(*rows), "1", "2") is expected


def test_the_state_of_the_models_in_words():
    models = [
        {"version": "1", "role": "champion", "state": "READY", "reason": ""},
        {"version": "2", "role": "", "state": "UNAVAILABLE", "reason": "a digest is wrong"},
    ]
    assert setup.describe({"models": models}) == "1 champion is READY; 2 is UNAVAILABLE a digest is wrong"
    assert setup.describe({"models": []}) == "it has loaded no model"


def aliases(client):
    return {alias: str(version) for alias, version in client.get_registered_model(MODEL).aliases.items()}


async def test_roles_and_promotion_in_a_registry(registry, onnx_model):
    first, second = (publish(MODEL, onnx_model, registry=registry) for _ in range(2))
    setup.assign_roles(first, second, registry)
    with registries.opened(registry) as client:
        assert aliases(client) == dict(zip(ROLES, (first, second, second), strict=True))
        assert client.get_model_version(MODEL, second).tags["penstock.weight"] == f"{CANARY_PERCENT:g}"
        await setup.promote_second(second, registry)
        assert aliases(client) == {"champion": second}
