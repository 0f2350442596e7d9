from dataclasses import dataclass, field

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.per_model import check_own, with_own


@dataclass(frozen=True)
class Own:
    rows: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Shared:
    rows: int = 1
    name: str = "all"
    models: dict[str, Own] = field(default_factory=dict)


def test_a_models_own_values_take_the_place_of_the_others() -> None:
    shared = Shared(models={"fraud": Own()})
    assert with_own(shared, Own()) == Shared()
    assert with_own(shared, Own(rows=0)) == Shared(rows=0)
    assert with_own(shared, Own(2, "own")) == Shared(2, "own")


def test_a_wrong_value_is_named_with_its_model() -> None:
    def of(model: str) -> None:
        if model == "fraud":
            raise InvalidInputError("batching.rows is 0, expected at least 1")

    check_own("batching", ["churn"], of)
    with pytest.raises(InvalidInputError, match=r"^batching\.models\.fraud\.rows is 0, expected at least 1$"):
        check_own("batching", ["churn", "fraud"], of)
