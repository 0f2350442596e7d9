import pytest
from deploy import command


@pytest.mark.parametrize(
    ("champion", "expected"),
    [
        (None, ["penstock", "promote", "churn", "2"]),
        ("2", None),
        (
            "1",
            [
                *["penstock", "rollout", "start", "churn", "2", "--shadow-rows", "10"],
                "--gate",
                "errors=1",
                "--gate",
                "p99=2",
            ],
        ),
    ],
)
def test_the_first_version_is_champion_and_later_ones_are_rolled_out(champion, expected):
    assert command("churn", "2", champion, {"shadow_rows": 10, "gate": ["errors=1", "p99=2"]}) == expected
