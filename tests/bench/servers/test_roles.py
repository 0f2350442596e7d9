import pytest

from bench.servers import roles
from penstock_server.errors import UnavailableError


@pytest.mark.parametrize(
    ("are_idle", "published"),
    [
        (False, [("a", "champion", None), ("a", "canary", 10), ("a", "shadow", None)]),
        (
            True,
            [
                ("a", "champion", None),
                (roles.IDLE_MODEL, "champion", None),
                (roles.IDLE_MODEL, "canary", 10),
                (roles.IDLE_MODEL, "shadow", None),
            ],
        ),
    ],
)
def test_the_measured_model_has_the_roles_or_one_without_requests(are_idle, published) -> None:
    assert roles.plan(("a",), are_idle=are_idle) == published


def test_a_failed_publication_says_why(tmp_path) -> None:
    with pytest.raises(UnavailableError, match=r"publishing a failed: .*none\.onnx"):
        roles.publish("a", tmp_path / "none.onnx", registry=f"sqlite:///{tmp_path}/r.db", alias="champion")
