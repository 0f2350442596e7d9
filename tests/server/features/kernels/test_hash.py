import numpy as np
import pytest
from sklearn.feature_extraction import FeatureHasher

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, Hash, StringColumn, Text


@pytest.mark.parametrize("prefix", ["", "city="])
@pytest.mark.parametrize("signed", [True, False])
def test_a_hash_is_that_of_feature_hasher(prefix: str, signed: bool) -> None:
    words = ["", "a", "ab", "abc", "abcd", "abcde", "é", "Zürich", "x" * 99, *map(str, range(500))]
    hasher = FeatureHasher(13, input_type="string", alternate_sign=signed)
    expected = hasher.transform([[prefix + word] for word in words]).toarray()
    spec = FeatureSpec((StringColumn("s"),), Text("s", Hash(13, signed, prefix)), "FP64")
    np.testing.assert_array_equal(Pipeline(spec).transform({"s": words}), expected)
