import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.sources.source import Desired, WantedModel

versions = st.none() | st.integers(0, 9).map(str)
wanted_models = st.builds(
    WantedModel, champion=versions, canary=versions, canary_weight=st.floats(0, 1), shadow=versions
)
names = st.text(max_size=3)
wishes = st.builds(
    Desired, models=st.dictionaries(names, wanted_models), problems=st.dictionaries(names, st.text(max_size=3))
)


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(InvalidInputError, match="expected a share from 0 to 1"):
        WantedModel("1", "2", weight)


def test_versions_are_those_that_play_a_part() -> None:
    assert WantedModel().versions == frozenset()
    assert WantedModel("1", "2", 0.1, "2").versions == {"1", "2"}


@given(wishes)
def test_a_wish_survives_json(wish: Desired) -> None:
    assert msgspec.json.decode(msgspec.json.encode(wish), type=Desired) == wish


@given(wishes, wishes)
def test_only_a_problem_without_a_wish_keeps_the_former_one(now: Desired, former: Desired) -> None:
    kept = now.keeping(former)
    assert kept.problems == now.problems
    for name in {*now.models, *now.problems, *former.models}:
        if name in now.models:
            assert kept.models[name] == now.models[name]
        elif name in now.problems and name in former.models:
            assert kept.models[name] == former.models[name]
        else:
            assert name not in kept.models
