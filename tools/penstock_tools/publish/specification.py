"""Reads a feature specification from a file, with nothing installed but the server."""

from pathlib import Path
from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec import limits, spec
from penstock_server.features.spec.spec import FeatureSpec

_YAML: Final = frozenset({".yaml", ".yml"})
SUFFIXES: Final = _YAML | {".json"}


def read_specification(path: Path) -> FeatureSpec:
    """The specification in a .yaml, .yml or .json file.

    Raises:
        InvalidInputError: no such file, another kind of file, or no sound specification; names the column and the step.
    """
    if path.suffix not in SUFFIXES:
        raise InvalidInputError(f"{path} is no feature specification; expected .yaml or .json")
    try:
        size = path.stat().st_size
        if size > limits.MAX_BYTES:
            raise InvalidInputError(f"{path} takes {size} bytes, expected at most {limits.MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    return spec.decode_yaml(data) if path.suffix in _YAML else spec.decode(data)
