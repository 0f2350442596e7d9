"""What the specification has no step for is left to the ONNX graph: fitted transformers between the block and the model.

Decides what goes into the graph and what goes past it. The compiler asks when a rule gives up; what neither can carry out
is refused, with its place and what would do.
"""

from collections.abc import Sequence
from typing import Any, Final

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler import fitted
from penstock_tools.sklearn_compiler.columns import InGraph, Numbers, Part, Strings, join
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Path, place

_INSTEAD: Final = {
    # skl2onnx picks columns of the graph's input alone.
    "ColumnTransformer": "choose columns before that, or with a feature selector",
    "IterativeImputer": "SimpleImputer and KNNImputer work",
    "CountVectorizer": "FeatureHasher, OneHotEncoder and TargetEncoder work on whole texts",
    "TfidfVectorizer": "FeatureHasher, OneHotEncoder and TargetEncoder work on whole texts",
    "HashingVectorizer": "FeatureHasher works on whole texts",
    "FunctionTransformer": "numpy's functions of one array, numpy.clip and penstock_tools.functions work",
}
_ELSE: Final = "expected a transformer that Penstock compiles or skl2onnx converts, fitted on what requests can hold"


def applied(transformer: Any, parts: Sequence[Part], path: Path, reason: NotCompiled) -> InGraph:
    """What the transformer makes of the parts, in the graph.

    Raises:
        UnsupportedError: text reaches it, or skl2onnx has no converter for it.
    """
    texts = [part.column for part in parts if isinstance(part, Strings)]
    if texts:
        raise refusal(transformer, path, f"column {texts[0]!r} is text when it gets there, and {reason}")
    if not parts or not fitted.can_convert(transformer):
        raise refusal(transformer, path, str(reason))
    before = stacked(parts)
    whole = transformer if before.transformer is None else fitted.chained(before.transformer, transformer)
    return InGraph(before.block, whole, fitted.width_out(whole, before.block.width))


def refusal(transformer: Any, path: Path, reason: str) -> UnsupportedError:
    """The error of a transformer that nobody can carry out: where, why, and what would do."""
    instead = _INSTEAD.get(type(transformer).__name__, _ELSE)
    return UnsupportedError(f"{place(path)} cannot be published: {reason}; {instead}")


def stacked(parts: Sequence[Part]) -> InGraph:
    """Parts side by side as one, whose transformer is None where all are numbers already.

    The blocks of all stand side by side in the graph's input, and it passes on what it has nothing to do to.
    """
    given = [part for part in parts if isinstance(part, Numbers | InGraph)]
    if len(given) == 1 and isinstance(given[0], InGraph):
        return given[0]
    block = join([part.block for part in given])
    width = sum(part.width for part in given)
    if all(isinstance(part, Numbers) for part in given):
        return InGraph(block, None, width)
    branches, at = [], 0
    for part in given:
        columns = range(at, at := at + part.block.width)
        branches.append((part.transformer if isinstance(part, InGraph) else "passthrough", columns))
    return InGraph(block, fitted.beside(branches, at), width)
