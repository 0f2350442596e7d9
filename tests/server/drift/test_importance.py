import msgspec
import pytest

from penstock_server.drift import importance as file
from penstock_server.drift.importance import Importance
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take

FEATURES = FeatureSpec((NumberColumn("age"), NumberColumn("fare")), Take(("age", "fare")))
SOUND = Importance("AUC lost", {"age": 0.1, "fare": -0.001}, rows=200, repeats=3)


def test_a_file_holds_it() -> None:
    assert file.decode(file.encode(SOUND)) == SOUND
    file.check(SOUND, FEATURES)


def test_a_column_that_the_features_lack_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match="the importance names the column 'name', which the features do not have"
    ):
        file.check(Importance("AUC lost", {"name": 0.1}, rows=1, repeats=1), FEATURES)


HOSTILE = {
    "no JSON": (b"{", "the importance is refused"),
    "another format": (b'{"format": 9}', "format 9 is unknown, expected 1"),
    "a field that is none": (file.encode(SOUND)[:-1] + b', "more": 1}', "unknown field `more`"),
    "a number beyond float64": (file.encode(SOUND).replace(b"0.1", b"1e999"), "the importance is refused"),
    "a measure that hides": (file.encode(SOUND).replace(b"AUC", b"\\u202e"), "expected up to 200 printable characters"),
    "too many columns": (
        msgspec.json.encode({**msgspec.to_builtins(SOUND), "values": {str(at): 0.0 for at in range(5000)}}),
        "5000 columns, expected at most 4096",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        file.decode(content)
