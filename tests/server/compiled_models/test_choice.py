import doctest

import pytest

from penstock_server.compiled_models import choice


@pytest.mark.parametrize(
    ("ours", "served", "said"),
    [
        (
            (1, 1, 1, 1),
            {1, 2, 3, 16, 17, 256, 257, 10**6},
            "kernels: 2.0 / 2.0 / 2.0 / 2.0 times as fast as onnxruntime for 1 / 8 / 64 / 1,024 rows; trees",
        ),
        (
            (1, 1, 3, 3),
            {1, 2, 3, 16},
            "kernels up to 16 rows: onnxruntime serves the others; kernels are 2.0 / 2.0 / 0.7 / 0.7 times",
        ),
        ((3, 3, 3, 1), {257, 10**6}, "kernels above 256 rows: "),
        ((3, 1, 1, 3), {3, 16, 17, 256}, "kernels of 3 to 256 rows: "),
        ((1, 3, 1, 3), {1, 2, 17, 256}, "kernels up to 2 rows and of 17 to 256 rows: "),
        ((3, 3, 3, 3), set(), "onnxruntime: kernels would be 0.7 / 0.7 / 0.7 / 0.7 times as fast"),
        ((2, 2, 2, 2), set(), "onnxruntime: kernels would be 1.0"),
    ],
)
def test_the_faster_one_serves_each_size(ours: tuple[float, ...], served: set[int], said: str) -> None:
    chosen = choice.fastest("trees", ours, (2, 2, 2, 2))
    assert {rows for rows in (1, 2, 3, 16, 17, 256, 257, 10**6) if chosen.serves(rows)} == served
    assert chosen.is_any == bool(served)
    assert chosen.reason.startswith(said)


def test_the_examples() -> None:
    assert doctest.testmod(choice) == (0, 1)


def test_no_kernels_serve_nothing_and_say_why() -> None:
    chosen = choice.none("it is a Tuesday")
    assert chosen.reason == "onnxruntime: it is a Tuesday"
    assert not any(chosen.serves(rows) for rows in (1, 8, 64, 1024))
