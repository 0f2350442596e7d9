import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, StringColumn
from penstock_server.features.spec.steps import Fill, Refuse
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler import accepting, edges

ROWS = 60
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RANDOM.integers(1, 80, ROWS),
        "fare": RANDOM.gamma(2, 20, ROWS),
        "city": RANDOM.choice(["Oslo", "Rome"], ROWS),
    }
)
ANSWERS = (FRAME["age"] > 40).to_numpy()
DOUBLE, SINGLE = accepting.LARGEST_DOUBLE, accepting.LARGEST_SINGLE


def prepared(*number, text=None, model=None):
    columns = make_column_transformer(
        (make_pipeline(*number), ["age", "fare"]), (text or OneHotEncoder(handle_unknown="ignore"), ["city"])
    )
    fitted = make_pipeline(columns, model or LogisticRegression()).fit(FRAME, ANSWERS)
    return fitted, prepare(fitted, FRAME)


def unsettled(features):
    """The specification before it says what it accepts."""
    return msgspec.structs.replace(features, columns=tuple(type(column)(column.name) for column in features.columns))


def accepts(found):
    """What the columns say, without their names."""
    return [msgspec.structs.astuple(column)[1:] for column in found.features.columns]


def guards(block):
    inner = getattr(block, "blocks", ())
    return [step for step in block.steps if isinstance(step, Refuse)] + [
        step for each in inner for step in guards(each)
    ]


NUMBERS = {
    "filled": ((SimpleImputer(), StandardScaler()), None, ("accept", DOUBLE)),
    "scaled": ((StandardScaler(),), None, ("refuse", DOUBLE)),
    "into a tree, filled": ((SimpleImputer(),), DecisionTreeClassifier(random_state=0), ("accept", SINGLE)),
    "into boosting": (("passthrough",), HistGradientBoostingRegressor(max_iter=3), None),
}


@pytest.mark.long
@pytest.mark.parametrize(("number", "model", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_number_columns_accept_what_the_pipeline_takes(number, model, expected):
    fitted, found = prepared(*number, model=model)
    if expected is not None:
        assert accepts(found)[:2] == [expected] * 2
    assert not guards(found.features.features)
    _check_every_edge(fitted, found)


def test_a_missing_text_is_refused_as_the_pipeline_refuses_it():
    fitted, found = prepared(SimpleImputer(), text=OneHotEncoder())
    assert accepts(found)[2] == ("refuse",)
    _check_every_edge(fitted, found)


def test_what_a_logarithm_cannot_take_is_refused_before_the_model():
    fitted, found = prepared(FunctionTransformer(np.log1p))
    assert guards(found.features.features) == [Refuse(missing=True, largest=DOUBLE)]
    _check_every_edge(fitted, found)


def test_the_empty_text_is_a_text_where_the_pipeline_knows_no_missing_one():
    given = FRAME.assign(city=FRAME["city"].where(FRAME["age"] > 20, ""))
    columns = make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), ["fare"]))
    fitted = make_pipeline(columns, LogisticRegression()).fit(given, ANSWERS)
    assert StringColumn("city", "text") in prepare(fitted, given).features.columns


def test_what_the_pipeline_drops_may_come():
    fitted = make_pipeline(make_column_transformer((StandardScaler(), ["age"])), LogisticRegression()).fit(
        FRAME, ANSWERS
    )
    found = prepare(fitted, FRAME)
    assert found.features.ignored == ("fare", "city")
    assert [column.name for column in found.features.columns] == ["age"]


def test_a_compiled_version_that_answers_an_unseen_text_otherwise_is_not_published():
    text = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    fitted, found = prepared(SimpleImputer(), text=text, model=LinearRegression())
    encoded = msgspec.json.encode(unsettled(found.features))
    wrong = msgspec.json.decode(encoded.replace(b"[-1.0]", b"[700.0]"), type=FeatureSpec)
    with pytest.raises(ModelFailedError, match=r"column 'city': .* answers a text that training never saw otherwise"):
        edges.settled(fitted, found.compiled.sample, Pipeline(wrong), found.graph.runtime)


def test_a_version_that_fills_otherwise_refuses_missing_numbers_and_says_so():
    fitted, found = prepared(SimpleImputer(), model=LinearRegression())

    def filled_otherwise(block):
        if hasattr(block, "blocks"):
            return msgspec.structs.replace(block, blocks=tuple(map(filled_otherwise, block.blocks)))
        steps = tuple(Fill((1e3,)) if isinstance(step, Fill) else step for step in block.steps)
        return msgspec.structs.replace(block, steps=steps)

    wrong = msgspec.structs.replace(unsettled(found.features), features=filled_otherwise(found.features.features))
    settled = edges.settled(fitted, found.compiled.sample, Pipeline(wrong), found.graph.runtime)
    assert [column.missing for column in settled.pipeline.spec.columns] == ["refuse", "refuse", "accept"]
    assert settled.notes[0] == (
        "missing values in 'age', 'fare' are refused, since the compiled version would answer them otherwise than the "
        "pipeline"
    )


@pytest.mark.long
def test_what_a_wide_pipeline_was_not_asked_about_is_refused_like_the_rest():
    matrix = RANDOM.normal(size=(40, 70))
    fitted = make_pipeline(StandardScaler(), LinearRegression()).fit(matrix, matrix[:, 0])
    found = prepare(fitted, matrix)
    assert {column.missing for column in found.features.columns} == {"refuse"}
    assert {column.largest for column in found.features.columns} == {DOUBLE}
    assert found.notes[-1].startswith("missing values in 'feature_")


def test_what_a_slow_pipeline_was_not_asked_about_is_refused_unless_the_sample_has_it(monkeypatch):
    monkeypatch.setattr(edges, "_MOST_S", 0.0)
    frame = pd.DataFrame({f"n{at}": RANDOM.normal(size=ROWS) for at in range(6)})
    frame.loc[:9, "n1"] = np.nan
    columns = make_column_transformer((SimpleImputer(), ["n1", "n4"]), ("passthrough", ["n0", "n2", "n3", "n5"]))
    fitted = make_pipeline(columns, LinearRegression()).fit(frame, ANSWERS)
    found = prepare(fitted, frame)
    asked = [found.features.columns[at].name for at in (0, 1, 3, 5)]
    assert asked == ["n0", "n1", "n3", "n5"]
    missing = {column.name: column.missing for column in found.features.columns}
    assert missing == {"n0": "refuse", "n1": "accept", **dict.fromkeys(["n2", "n3", "n4", "n5"], "refuse")}
    assert found.notes[-1].startswith("missing values in 'n2', 'n4' are refused as in others, since ")


@pytest.mark.long
def test_an_unseen_text_that_one_member_refuses_is_refused_though_another_takes_nan():
    text = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    linear = make_pipeline(make_column_transformer((text, ["city"]), (SimpleImputer(), ["age"])), LinearRegression())
    boosted = make_pipeline(
        make_column_transformer(("passthrough", ["fare"])), HistGradientBoostingRegressor(max_iter=3)
    )
    fitted = VotingRegressor([("linear", linear), ("boosted", boosted)]).fit(FRAME, ANSWERS)
    found = prepare(fitted, FRAME)
    assert accepts(found)[1] == ("accept", None)
    _check_every_edge(fitted, found)


def test_what_the_pipeline_alone_refuses_and_no_column_can_is_told():
    fitted, found = prepared(SimpleImputer(), model=LinearRegression())

    class Picky:
        def predict(self, rows):
            if (rows["city"] == "never seen before").any():
                raise ValueError("no such city")
            return fitted.predict(rows)

    built = Pipeline(unsettled(found.features))
    settled = edges.settled(Picky(), found.compiled.sample, built, found.graph.runtime)
    assert settled.notes[-1] == "a text that training never saw in 'city' is answered, which the pipeline refuses"


def _check_every_edge(fitted, found):
    """What the version answers is what the pipeline answers; what the pipeline refuses it refuses."""
    values = {
        "age": [np.nan, np.inf, -np.inf, 1e300, 1e39, -5.0, 0.0],
        "fare": [np.nan, np.inf, 1e300, -1.0, -7.5],
        "city": [np.nan, "Paris"],
    }
    for name, asked in values.items():
        for value in asked:
            row = FRAME.head(1).copy()
            row[name] = pd.Series([value], dtype=object if name == "city" else float)
            wire = {each: row[each].to_numpy() for each in FRAME.columns}
            try:
                expected = fitted.predict_proba(row) if hasattr(fitted, "predict_proba") else fitted.predict(row)
            except ValueError:
                expected = None
            try:
                matrix = found.pipeline.transform(wire)
            except InvalidInputError as error:
                assert repr(name) in str(error), (name, value)  # noqa: PT017 - it may answer instead
                continue
            assert expected is not None, (name, value)
            got = found.graph.runtime.run({"features": matrix})[-1]
            np.testing.assert_allclose(got.ravel(), np.ravel(expected), rtol=1e-4, atol=1e-5, err_msg=f"{name} {value}")
