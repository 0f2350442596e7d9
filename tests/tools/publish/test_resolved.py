"""What users resolve, not developers: publishing with any pandas, any protobuf, from files that lost something.

`.github/resolved.sh` runs it, with the other tests that need no developers' package, in environments of their own.
"""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Normalizer,
    OneHotEncoder,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from penstock_tools.publish import files
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.load import read_sample

ROWS = 200
RANDOM = np.random.default_rng(3)


def frame() -> pd.DataFrame:
    """Numbers and texts, some missing as NaN, as people have them when they fit."""
    city = RANDOM.choice(["Oslo", "Rome", "Bern"], ROWS).astype(object)
    city[::7] = np.nan
    age = RANDOM.integers(1, 80, ROWS).astype(float)
    age[::9] = np.nan
    married = np.array([True, False], object)[RANDOM.integers(0, 2, ROWS)]
    married[::11] = np.nan
    return pd.DataFrame({"age": age, "fare": RANDOM.gamma(2, 20, ROWS), "city": city, "married": married})


FRAME = frame()
ANSWERS = np.where((FRAME["fare"] > 30) ^ (FRAME["city"] == "Rome"), "yes", "no")


def fill_and_scale():
    return make_pipeline(SimpleImputer(), StandardScaler())


def encode():
    return make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))


PIPELINES = {
    "an imputer": (encode(), fill_and_scale(), LogisticRegression(max_iter=1000)),
    "a category NaN": (
        OneHotEncoder(handle_unknown="ignore"),
        SimpleImputer(),
        RandomForestClassifier(9, random_state=0),
    ),
    "boosting": (TargetEncoder(random_state=0), "passthrough", HistGradientBoostingClassifier(max_iter=9)),
}


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("parts", PIPELINES.values(), ids=PIPELINES)
def test_missing_values_mean_what_they_meant_when_the_pipeline_was_fitted(parts, suffix, tmp_path):
    text, number, model = parts
    columns = make_column_transformer((text, ["city", "married"]), (number, ["age", "fare"]))
    fitted = make_pipeline(columns, model).fit(FRAME, ANSWERS)
    path = tmp_path / f"sample.{suffix}"
    FRAME.to_csv(path, index=False) if suffix == "csv" else FRAME.to_parquet(path)
    prepared = prepare(fitted, read_sample(path))
    wire = {
        "age": FRAME["age"].to_numpy(),
        "fare": FRAME["fare"].to_numpy(),
        "city": FRAME["city"].fillna("").to_numpy(object),
        "married": FRAME["married"].astype(float).to_numpy(),
    }
    label, probabilities = prepared.graph.runtime.run({"features": prepared.pipeline.transform(wire)})
    np.testing.assert_allclose(probabilities, fitted.predict_proba(FRAME), atol=1e-5)
    assert [each.decode() if isinstance(each, bytes) else each for each in label.tolist()] == fitted.predict(
        FRAME
    ).tolist()


@pytest.mark.long
@pytest.mark.parametrize(
    "step",
    [Normalizer(), QuantileTransformer(n_quantiles=20), SplineTransformer()],
    ids=lambda step: type(step).__name__,
)
def test_a_pipeline_from_a_file_is_registered(step, registry, tmp_path):
    """The texts of what is unpickled are other objects than those of the source."""
    numbers = FRAME[["age", "fare"]].fillna(1.0)
    joblib.dump(make_pipeline(step, LogisticRegression(max_iter=1000)).fit(numbers, ANSWERS), tmp_path / "p.joblib")
    numbers.to_parquet(tmp_path / "s.parquet")
    request = files.Request("fraud", tmp_path / "p.joblib", tmp_path / "s.parquet")
    version, _ = files.publish(request, lambda _: True, lambda _: None)
    assert version == "1"
