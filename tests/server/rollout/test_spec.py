import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.spec import RolloutSpec, as_mapping, of_mapping, parse


def test_a_declaration_is_read_as_people_write_it() -> None:
    spec = parse(
        '{"steps": [5, 25, 100], "hold": "5m", "requests": 200, "shadow": "1h", "sample": 10, "hold_back": 2, '
        '"gates": {"errors": 1.3, "p95": 1.5, "accuracy": 1, "disagreement": 0.02}, "deadline": "2d"}'
    )
    assert [stage.weight for stage in spec.stages] == [0.0, 0.05, 0.25, 0.98]
    assert (spec.hold_s, spec.shadow_s, spec.sample, spec.hold_back, spec.deadline_s) == (300, 3600, 0.1, 0.02, 172800)
    assert spec.is_promoted_after
    words = spec.in_words()
    for part in ("shadow for 1 hour", "10 % of the champion's answers", "5 %, 25 % and 98 %", "5 minutes", "200 requests",
                 "1.3 times the champion's", "p95", "1 point of accuracy", "2 % of a request", "after 2 days"):  # fmt: skip
        assert part in words


@pytest.mark.parametrize("text", ["", "default", "true", "{}", "  "])
def test_nothing_declares_the_defaults(text: str) -> None:
    spec = parse(text)
    assert spec == RolloutSpec()
    assert [str(stage) for stage in spec.stages] == ["5 %", "25 %", "50 %"]


def test_without_a_step_of_100_nothing_is_promoted() -> None:
    spec = parse('{"steps": [10, 50]}')
    assert not spec.is_promoted_after
    assert "until somebody promotes it" in spec.in_words()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "no JSON"),
        ("[1]", "no JSON object"),
        ("[" * 3000, "no JSON"),
        ('{"steps": [5]' + " " * 5000 + "}", "more than 4096 bytes"),
        ('{"step": [5]}', "a rollout has no 'step'; expected steps"),
        ('{"steps": []}', "steps has 0 percentages"),
        ('{"steps": [50, 25]}', "steps is 50, 25, expected rising"),
        ('{"steps": [0, 25]}', "expected rising"),
        ('{"steps": [5, 101]}', "expected rising"),
        ('{"steps": [NaN]}', "steps is 'nan', expected a number"),
        ('{"steps": "5,25"}', "expected percentages"),
        ('{"steps": [true]}', "expected a number"),
        ('{"steps": [100]}', "nothing would be known before"),
        ('{"steps": [100], "shadow": "1h"}', "which only a canary shows"),
        ('{"hold": "soon"}', "hold is 'soon', expected a duration"),
        ('{"requests": 0}', "requests is 0, expected at least 1"),
        ('{"requests": 1.5}', "expected a whole number"),
        ('{"gates": {}}', "gates is empty"),
        ('{"gates": []}', "expected margins"),
        ('{"gates": {"errors": 1}}', "gates.errors is 1, expected a ratio above 1"),
        ('{"gates": {"speed": 2}}', "gates has 'speed', which is no metric"),
        ('{"gates": {"accuracy": 0}}', "gates.accuracy is 0"),
        ('{"gates": {"value": -1}}', "gates.value is -1"),
        ('{"gates": {"disagreement": 0.1}}', "which only a shadow shows"),
        ('{"gates": {"disagreement": 2}, "shadow": "1h"}', "gates.disagreement is 2"),
        ('{"sample": 0}', "sample is 0, expected"),
        ('{"hold_back": 60}', "hold_back is 60 percent"),
        ('{"false_rollbacks": 0}', "false_rollbacks is 0"),
        ('{"dispersion": 0.5}', "dispersion is 0.5, expected 1 or more"),
        ('{"deadline": 0}', "deadline_s is 0"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said.replace("(", r"\(")):
        parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
            ["steps", "hold", "requests", "shadow", "gates", "errors", "p99", "sample", "hold_back"]) | st.text(max_size=3),
            inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_any_declaration_is_a_specification_or_refused(value: Any) -> None:
    try:
        spec = parse(json.dumps(value))
    except InvalidInputError:
        return
    assert spec.stages
    assert spec.in_words()


@given(
    steps=st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True),
    hold=st.integers(0, 10**6),
    shadow=st.integers(0, 10**5),
    sample=st.integers(1, 100),
    margin=st.floats(1.01, 10),
)
def test_what_is_shown_is_read_again(steps: list[int], hold: int, shadow: int, sample: int, margin: float) -> None:
    spec = of_mapping(
        {"steps": sorted(steps), "hold": hold, "shadow": shadow, "sample": sample, "gates": {"errors": margin}}
    )
    assert of_mapping(json.loads(json.dumps(as_mapping(spec)))) == spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=RolloutSpec) == spec
