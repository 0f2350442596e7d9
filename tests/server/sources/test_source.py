import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan
from penstock_server.rollout.registered import RegisteredRollout
from penstock_server.sources.source import Desired

names = st.text(max_size=3)
arms = st.lists(st.builds(Arm, version=names, weight=st.floats(0, 0.5), alias=names), max_size=2).map(tuple)
shadows = st.lists(st.builds(ShadowArm, version=names, fraction=st.floats(0, 1), alias=names), max_size=2).map(tuple)
plans = st.builds(TrafficPlan, champion=st.none() | names, canaries=arms, shadows=shadows)
states = st.builds(Desired, models=st.dictionaries(names, plans), problems=st.dictionaries(names, st.text(max_size=3)))


@given(states)
def test_a_desired_state_survives_json(state: Desired) -> None:
    assert msgspec.json.decode(msgspec.json.encode(state), type=Desired) == state


@given(states, states)
def test_only_a_problem_without_a_plan_keeps_the_former_one(now: Desired, former: Desired) -> None:
    kept = now.keeping(former)
    assert kept.problems == now.problems
    for name in {*now.models, *now.problems, *former.models}:
        if name in now.models:
            assert kept.models[name] == now.models[name]
        elif name in now.problems and name in former.models:
            assert kept.models[name] == former.models[name]
        else:
            assert name not in kept.models


@given(states, states)
def test_nothing_of_the_former_state_is_left_of_a_model_that_has_a_plan(now: Desired, former: Desired) -> None:
    rollout = RegisteredRollout("1", {}, {})
    marked = msgspec.structs.replace(
        former,
        identities={name: {"1": "former"} for name in former.models},
        rollouts=dict.fromkeys(former.models, rollout),
        model_tags={name: {"penstock.lease": "former"} for name in former.models},
    )
    kept = now.keeping(marked)
    for held in (kept.identities, kept.rollouts, kept.model_tags):
        assert held.keys() == (now.problems.keys() & former.models.keys()) - now.models.keys()
