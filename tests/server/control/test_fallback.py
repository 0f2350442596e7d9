from penstock_server.control.fallback import PROBATION_S, Fallbacks, common_champions, common_files
from penstock_server.rollout.plan import Arm, TrafficPlan


def test_the_champions_that_all_workers_share() -> None:
    one, two = (
        {"a": TrafficPlan("1"), "b": TrafficPlan("1")},
        {"a": TrafficPlan("1", (Arm("2", 0.1),)), "b": TrafficPlan("2")},
    )
    assert common_champions([one, two]) == {"a": "1"}
    assert common_champions([one]) == {"a": "1", "b": "1"}
    assert common_champions([one, {}]) == {}
    assert common_champions([]) == {}
    assert common_champions([{"a": TrafficPlan()}]) == {}


def test_champions_whose_files_are_the_same_in_all_workers() -> None:
    champions = {"a": "1", "b": "1", "c": "1"}
    held = [{("a", "1"): "x", ("b", "1"): "x", ("c", "1"): "x"}, {("a", "1"): "x", ("b", "1"): "y"}]
    assert common_files(champions, held) == {"a": ("1", "x")}
    assert common_files({"a": "1"}, [{("a", "1"): ""}]) == {"a": ("1", "")}


def test_files_that_are_registered_anew_have_to_answer_for_a_while_too() -> None:
    known = Fallbacks().after({"a": ("1", "x")}, {"a"}, 0.0).after({"a": ("1", "y")}, {"a"}, PROBATION_S)
    assert (known.versions, known.identities) == ({"a": "1"}, {"a": "x"})
    assert known.after({"a": ("1", "y")}, {"a"}, 2 * PROBATION_S).identities == {"a": "y"}


def test_the_files_that_answered_are_meant_unless_others_are_desired() -> None:
    known = Fallbacks().after({"a": ("1", "x"), "b": ("1", "x")}, {"a", "b"}, 0.0)
    desired = {"a": {"2": "z"}, "b": {"1": "y"}, "c": {"1": "w"}}
    assert known.required(desired) == {"a": {"1": "x", "2": "z"}, "b": {"1": "y"}, "c": {"1": "w"}}


def test_a_champion_becomes_the_fallback_once_it_has_answered_for_a_while() -> None:
    known = Fallbacks().after({"a": ("1", "x")}, {"a"}, 0.0)
    assert known.versions == {"a": "1"}  # the first at once: there is no other
    known = known.after({"a": ("2", "x")}, {"a"}, 10.0)
    known = known.after({"a": ("2", "x")}, {"a"}, 10.0 + PROBATION_S - 1)
    assert known.versions == {"a": "1"}
    assert known.after({"a": ("2", "x")}, {"a"}, 10.0 + PROBATION_S).versions == {"a": "2"}


def test_while_nothing_answers_the_fallback_stays() -> None:
    known = Fallbacks().after({"a": ("1", "x")}, {"a"}, 0.0).after({}, {"a"}, 1e6)
    assert known.versions == {"a": "1"}


def test_a_champion_that_goes_and_comes_back_begins_again() -> None:
    known = (
        Fallbacks()
        .after({"a": ("1", "x")}, {"a"}, 0.0)
        .after({"a": ("2", "x")}, {"a"}, 1.0)
        .after({"a": ("1", "x")}, {"a"}, 2.0)
    )
    assert known.after({"a": ("2", "x")}, {"a"}, 2.0 + PROBATION_S).versions == {"a": "1"}


def test_models_that_are_not_desired_are_forgotten() -> None:
    known = (
        Fallbacks()
        .after({"a": ("1", "x"), "b": ("1", "x")}, {"a", "b"}, 0.0)
        .after({"a": ("1", "x"), "b": ("1", "x")}, {"b"}, 1.0)
    )
    assert (known.versions, known.answering) == ({"b": "1"}, {"b": ("1", "x", 0.0)})


def test_a_model_that_is_not_desired_keeps_none_that_is_from_being_known() -> None:
    assert Fallbacks().after({"gone": ("1", "x"), "a": ("1", "x")}, {"a"}, 0.0).versions == {"a": "1"}
