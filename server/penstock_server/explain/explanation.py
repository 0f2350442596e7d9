"""The explanation of a version: what its attributions are computed from, as a file that comes with it.

Publishing writes it, serving reads it. It is msgpack, since trees are arrays of numbers: little-endian bytes of the types
that the records name. This module defines the file and refuses hostile ones; `attributor` computes with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features.compiler import tree_layout as layout
from penstock_server.features.spec.spec import FeatureSpec

FORMAT: Final = 1
MAX_BYTES: Final = 64 << 20
MAX_NODES: Final = 1 << 20
MAX_TREES: Final = 1 << 16
MAX_VALUES: Final = 1 << 16
"""Attributions of a row: raw columns times outputs."""
MAX_PATH: Final = 128
"""Features on one path."""
MAX_SENTENCE: Final = 500
MAX_GROUPS: Final = 1 << 16


class Origins(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The raw columns that each feature is made of.

    Attributes:
        group_of: int32 [features], an index into `groups`.
        groups: sets of raw columns, by their places in the specification; what a feature of several columns is worth is
            shared equally among them.
    """

    group_of: bytes
    groups: tuple[tuple[int, ...], ...]

    @cached_property
    def group_of_each(self) -> NDArray[np.int32]:
        return array(self.group_of, "<i4")


class Meaning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What attributions add up to.

    Attributes:
        of: what is explained, for people: "the log-odds", "the prediction".
        base: the expected answer for each output, to which a row's attributions are added.
        labels: the classes' labels, one per output; empty where there is one output, which needs no name.
        label: the class that a single output speaks for; "" for none.
    """

    of: str
    base: tuple[float, ...]
    labels: tuple[str, ...] = ()
    label: str = ""

    @property
    def outputs(self) -> int:
        """How many numbers are explained."""
        return len(self.base)


class Unexplained(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """A version that gives no attributions.

    Attributes:
        reason: why, as a sentence that follows "attributions are not there: ".
    """

    reason: str


class LinearExplanation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="linear"):
    """A linear model. A feature is worth its coefficient times its distance from the mean: the interventional values.

    Attributes:
        coefficients: float64 [features, outputs].
        means: float64 [features], of the background, which was the sample.
        rows: of the background.
    """

    meaning: Meaning
    origins: Origins
    coefficients: bytes
    means: bytes
    rows: int

    method: str = "linear, interventional"


class TreesExplanation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="trees"):
    """A sum of trees: path-dependent TreeSHAP, whose background are the training rows that each node has counted.

    Nodes ask a question each, and their children are nodes that come after them, or leaves. All trees' arrays stand one
    after another. Positions are those within a tree.

    Attributes:
        node_counts, leaf_counts: int32 [trees].
        paths: int32 [trees], the most features on one path.
        first_outputs, output_counts: int32 [trees], the outputs that its leaves have values for.
        feature: int32 [nodes].
        threshold: float64 [nodes]; of a node of categories the position in `categories` of their number and bits.
        left, right: int32 [nodes], a node, or -1 - a leaf.
        before: int32 [nodes], twice the last node above that asks for the same feature, plus 1 if this is on its right;
            -1 for none.
        flags: uint8 [nodes], of `features.compiler.tree_layout`.
        share_left, share_right: float64 [nodes], the share of training rows that go there, among those that all questions
            for this feature above let come.
        values: float64, for each tree [leaves, its outputs].
        categories: int64; those that go left at a node: how many bits, and a bit for each category from 0 on.
        is_strict: what is < a threshold goes left; else what is <=.
        is_single: values are compared as float32.
    """

    meaning: Meaning
    origins: Origins
    node_counts: bytes
    leaf_counts: bytes
    paths: bytes
    first_outputs: bytes
    output_counts: bytes
    feature: bytes
    threshold: bytes
    left: bytes
    right: bytes
    before: bytes
    flags: bytes
    share_left: bytes
    share_right: bytes
    values: bytes
    categories: bytes
    is_strict: bool
    is_single: bool

    method: str = "TreeSHAP, path-dependent"


Explanation = LinearExplanation | TreesExplanation
AnyExplanation = Explanation | Unexplained


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    explanation: AnyExplanation


class _Format(msgspec.Struct):
    format: int


_files: Final = msgspec.msgpack.Decoder(_File)
_formats: Final = msgspec.msgpack.Decoder(_Format)


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """The arrays of a `TreesExplanation`, as its attributes describe them."""

    node_counts: NDArray[np.int64]
    leaf_counts: NDArray[np.int64]
    paths: NDArray[np.int64]
    first_outputs: NDArray[np.int64]
    output_counts: NDArray[np.int64]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    before: NDArray[np.int32]
    flags: NDArray[np.uint8]
    share_left: NDArray[np.float64]
    share_right: NDArray[np.float64]
    values: NDArray[np.float64]
    categories: NDArray[np.int64]


def array(data: bytes, dtype: str) -> NDArray[Any]:
    """The bytes as an array; `ValueError` where they are not whole."""
    return np.frombuffer(data, dtype)


def encode(explanation: AnyExplanation) -> bytes:
    """The file's content."""
    return msgspec.msgpack.encode(_File(FORMAT, explanation))


def decode(data: bytes) -> AnyExplanation:
    """Decodes an untrusted file; `check` says whether it fits the specification.

    Raises:
        InvalidInputError: it is no explanation of this format.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"{len(data):,} bytes, expected at most {MAX_BYTES:,}")
        found = _formats.decode(data).format
        if found != FORMAT:
            raise ValueError(f"format {found} is unknown, expected {FORMAT}")
        return _files.decode(data).explanation
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the explanation is refused: {error}") from error


def check(explanation: AnyExplanation, spec: FeatureSpec) -> None:
    """Checks that an explanation fits the specification, and that computing with it touches no other memory.

    Raises:
        InvalidInputError: it does not; says what is wrong.
    """
    try:
        if isinstance(explanation, Unexplained):
            _check_text("reason", explanation.reason)
            return
        _check_meaning(explanation.meaning, len(spec.columns))
        _check_origins(explanation.origins, spec.width, len(spec.columns))
        if isinstance(explanation, LinearExplanation):
            _check_linear(explanation, spec.width)
        else:
            _check_trees(explanation, trees_of(explanation), spec.width)
    except ValueError as error:
        raise InvalidInputError(f"the explanation is refused: {error}") from error


def trees_of(explanation: TreesExplanation) -> Trees:
    """The arrays of an explanation; `ValueError` where their bytes are not whole."""
    counts = ("node_counts", "leaf_counts", "paths", "first_outputs", "output_counts")
    numbers: dict[str, Any] = {name: array(getattr(explanation, name), "<i4").astype(np.int64) for name in counts}
    types = {
        "feature": "<i4",
        "threshold": "<f8",
        "left": "<i4",
        "right": "<i4",
        "before": "<i4",
        "flags": "u1",
        "share_left": "<f8",
        "share_right": "<f8",
        "values": "<f8",
        "categories": "<i8",
    }
    return Trees(**numbers, **{name: array(getattr(explanation, name), kind) for name, kind in types.items()})


def _check_text(what: str, text: str) -> None:
    if len(text) > MAX_SENTENCE or not text.isprintable():
        raise ValueError(f"{what} is {text[:40]!r}, expected up to {MAX_SENTENCE} printable characters")


def _check_meaning(meaning: Meaning, columns: int) -> None:
    _check_text("of", meaning.of)
    for label in (*meaning.labels, meaning.label):
        _check_text("a label", label)
    if not 0 < meaning.outputs * columns <= MAX_VALUES:
        raise ValueError(f"{meaning.outputs} outputs of {columns} columns, expected 1 to {MAX_VALUES} values")
    if len(meaning.labels) not in {0, meaning.outputs} or not np.isfinite(meaning.base).all():
        raise ValueError(f"{len(meaning.labels)} labels of {meaning.outputs} outputs, or a base that is not finite")


def _check_origins(origins: Origins, width: int, columns: int) -> None:
    group_of = origins.group_of_each
    groups = len(origins.groups)
    if len(group_of) != width or groups > MAX_GROUPS:
        raise ValueError(f"the origins of {len(group_of)} features in {groups} groups, expected {width} features")
    if not groups or group_of.min() < 0 or group_of.max() >= groups:
        raise ValueError(f"a feature's group is none of {groups}")
    for group in origins.groups:
        if not 0 < len(group) <= columns or not all(0 <= column < columns for column in group):
            raise ValueError(f"a group's columns are {list(group[:5])}, expected some of 0 to {columns - 1}")
    if sum(map(len, origins.groups)) > MAX_GROUPS:
        raise ValueError(f"the groups name more than {MAX_GROUPS} columns")


def _check_linear(linear: LinearExplanation, width: int) -> None:
    coefficients, means = array(linear.coefficients, "<f8"), array(linear.means, "<f8")
    if coefficients.size != width * linear.meaning.outputs or means.size != width:
        raise ValueError(
            f"{coefficients.size} coefficients and {means.size} means, expected "
            f"{width * linear.meaning.outputs} and {width}"
        )
    if not (np.isfinite(coefficients).all() and np.isfinite(means).all()):
        raise ValueError("a coefficient or a mean is not finite")


def _check_trees(explanation: TreesExplanation, trees: Trees, width: int) -> None:
    counts, leaves = trees.node_counts, trees.leaf_counts
    total = len(trees.feature)
    each = (trees.leaf_counts, trees.paths, trees.first_outputs, trees.output_counts)
    if not 0 < len(counts) <= MAX_TREES or any(len(one) != len(counts) for one in each):
        raise ValueError(f"{len(counts)} trees, expected 1 to {MAX_TREES}, and each with its counts")
    if counts.min() < 1 or int(counts.sum()) != total or total > MAX_NODES or (leaves != counts + 1).any():
        raise ValueError(
            f"{total} nodes, expected as many as the trees have, at most {MAX_NODES}, and one leaf more each"
        )
    arrays = (trees.threshold, trees.left, trees.right, trees.before, trees.flags, trees.share_left, trees.share_right)
    if any(len(one) != total for one in arrays):
        raise ValueError(f"the arrays of nodes have different lengths, expected {total} in each")
    if trees.paths.min() < 1 or trees.paths.max() > MAX_PATH:
        raise ValueError(f"a path has {trees.paths.max()} features, expected 1 to {MAX_PATH}")
    last = trees.first_outputs + trees.output_counts
    if trees.first_outputs.min() < 0 or trees.output_counts.min() < 1 or last.max() > explanation.meaning.outputs:
        raise ValueError(f"a tree has outputs that are none of {explanation.meaning.outputs}")
    if int((leaves * trees.output_counts).sum()) != len(trees.values) or not np.isfinite(trees.values).all():
        raise ValueError("the leaves have other than one finite value for each of their tree's outputs")
    _check_nodes(trees, width)


def _check_nodes(trees: Trees, width: int) -> None:
    own = np.concatenate([np.arange(count) for count in trees.node_counts.tolist()])
    nodes, leaves = np.repeat(trees.node_counts, trees.node_counts), np.repeat(trees.leaf_counts, trees.node_counts)
    if trees.feature.min() < 0 or trees.feature.max() >= width:
        raise ValueError(f"a node asks for a feature that is none of {width}")
    for child in (trees.left, trees.right):
        # A child comes after its parent, so no way through a tree is without an end.
        is_node = (child > own) & (child < nodes)
        if not (is_node | ((child < 0) & (child >= -leaves))).all():
            raise ValueError("a node's child is neither a later node of its tree nor one of its leaves")
    for tree, (first, count) in enumerate(_ranges(trees.node_counts)):
        children = np.concatenate([trees.left[first : first + count], trees.right[first : first + count]])
        if len(np.unique(children)) != len(children):
            raise ValueError(f"tree {tree} has a node or a leaf with two parents")
    if (trees.before < -1).any() or (trees.before >= 2 * own).any():
        raise ValueError("a node's earlier node of the same feature is none before it")
    shares = np.concatenate([trees.share_left, trees.share_right])
    if not (np.isfinite(shares) & (shares > 0) & (shares < 1)).all():
        raise ValueError("a share of training rows is not between 0 and 1")
    if (trees.flags >= 1 << layout.FLAG_BITS).any() or np.isnan(trees.threshold).any():
        raise ValueError("a node has an unknown flag, or NaN as its threshold")
    _check_categories(trees)


def _check_categories(trees: Trees) -> None:
    places = trees.threshold[(trees.flags & layout.IS_CATEGORICAL) != 0]
    if not len(places):
        return
    most = len(trees.categories)
    if not ((places >= 0) & (places < most) & (places == np.floor(places))).all():
        raise ValueError("a node's categories are none of those given")
    at = places.astype(np.int64)
    bits = trees.categories[at]
    if (bits < 0).any() or (bits > 64 * most).any() or (at + 1 + (bits + 63) // 64 > most).any():
        raise ValueError("a node's categories end beyond those given")


def _ranges(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where each tree's nodes begin, and how many they are."""
    return zip((np.cumsum(counts) - counts).tolist(), counts.tolist(), strict=True)
