from typing import Any

import msgspec
import pytest
from hypothesis import given

from penstock_server.drift import baseline
from penstock_server.drift.fit import fit_baseline
from penstock_server.features.spec import spec, steps
from penstock_server.features.spec.defaults import with_own_defaults
from tests.examples import examples
from tests.server.features.random_specs import SPECS


def with_copied_texts(value: Any) -> Any:
    """The same with each text as another object, as pickles and files give it."""
    if isinstance(value, str):
        return value.encode("utf-32", "surrogatepass").decode("utf-32", "surrogatepass")
    if isinstance(value, tuple):
        return tuple(map(with_copied_texts, value))
    if isinstance(value, msgspec.Struct):
        fields = {name: with_copied_texts(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    return value


@examples(20)  # each is a whole specification
@given(SPECS)
def test_which_objects_hold_the_texts_makes_no_difference(made: spec.FeatureSpec) -> None:
    copied = with_copied_texts(made)
    assert copied == made
    assert spec.encode(copied) == spec.encode(made)
    assert spec.digest(spec.decode(spec.encode(copied))) == spec.digest(copied)


@pytest.mark.parametrize(
    "step",
    [
        steps.Normalise("l2"),
        steps.Match(((1.0,),), "code"),
        steps.Quantiles(((0.0, 1.0),), (0.0, 1.0), "uniform"),
        steps.Spline(((0.0, 1.0, 2.0, 3.0),), 1, "constant", True, "nan"),
    ],
)
def test_each_step_leaves_out_the_defaults_of_copied_texts(step: steps.Step) -> None:
    made = with_copied_texts(step)
    with_own_defaults(made)
    assert msgspec.json.encode(made) == msgspec.json.encode(step)


def test_a_baseline_of_copied_texts_has_the_same_bytes() -> None:
    features = spec.FeatureSpec(
        (spec.NumberColumn("fare"), spec.StringColumn("city")),
        spec.Join((spec.Take(("fare",)), spec.Text("city", spec.Categories(("Oslo",))))),
    )
    fitted = fit_baseline(features, {"fare": [1.0, 2.0, 3.0], "city": ["Oslo", "Rome", "Oslo"]}, bins=2)
    assert baseline.encode(with_copied_texts(fitted)) == baseline.encode(fitted)
