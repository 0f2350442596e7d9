import pytest

from penstock_server.models.signature import ANY, TensorInfo


@pytest.mark.parametrize(
    ("expected", "shape", "fits"),
    [
        ((ANY, 3), (7, 3), True),
        ((ANY, 3), (0, 3), True),
        ((ANY, 3), (7, 4), False),
        ((ANY, 3), (7,), False),
        ((ANY, 3), (7, 3, 1), False),
        ((ANY, 3), (ANY, 3), False),
        ((2, ANY), (3, 3), False),
        ((), (), True),
        ((), (1,), False),
    ],
)
def test_a_tensor_takes_shapes_of_its_rank_and_sizes(
    expected: tuple[int, ...], shape: tuple[int, ...], fits: bool
) -> None:
    assert TensorInfo("x", "FP32", expected).fits(shape) is fits
