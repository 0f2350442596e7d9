import pytest

from bench.servers import roles


@pytest.mark.parametrize(
    ("are_idle", "published"),
    [
        (False, [("a", "champion", None), ("a", "canary", 10), ("a", "shadow", None)]),
        (
            True,
            [
                ("a", "champion", None),
                (roles.IDLE, "champion", None),
                (roles.IDLE, "canary", 10),
                (roles.IDLE, "shadow", None),
            ],
        ),
    ],
)
def test_roles_are_held_by_the_asked_model_or_by_one_that_nobody_asks(are_idle, published) -> None:
    assert roles.plan(("a",), are_idle=are_idle) == published


def test_a_failed_publication_says_why(tmp_path) -> None:
    with pytest.raises(roles.ServerError, match=r"publishing a failed: .*none\.onnx"):
        roles.publish("a", tmp_path / "none.onnx", registry=f"sqlite:///{tmp_path}/r.db", alias="champion")
