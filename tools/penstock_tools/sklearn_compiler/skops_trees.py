"""Builds the pipeline of a .skops file with scikit-learn's trees, once the trees are checked.

skops trusts no tree, as it looks at types alone. The checks (`tree_checks`) see what skops itself read, and nothing that
is read beside it: its format lets one place of a file stand for another, and two readers may differ on which. A check of the
finished pipeline alone would come too late, as a `Tree` is made by compiled code.

A tree is harmless where scikit-learn puts it. Anywhere else it might be handed rows of any width, so the places of all trees
are checked as well.
"""

import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final
from zipfile import ZipFile

from penstock_tools.sklearn_compiler.tree_checks import (
    GROWN_TREES,
    HISTOGRAMS,
    HOLDERS,
    UnknownUseError,
    check_holder,
    check_tree,
)

TREE: Final = "sklearn.tree._tree.Tree"
PREDICTOR: Final = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
TREE_TYPES: Final = frozenset({TREE, PREDICTOR})

_NODE_OF: Final = {TREE: "TreeNode", PREDICTOR: "ObjectNode"}
"""The kind of node that skops writes for a tree."""
_KNOWN_MODULES: Final = frozenset({f"skops.io.{name}" for name in ("_general", "_numpy", "_scipy", "_sklearn")})
"""Where the nodes are that list all that they hold as their children; a CachedNode holds another place's."""
_PLAIN: Final = frozenset({"TupleNode", "DictNode", "ListNode", "TypeNode", "JsonNode", "NdArrayNode"})
"""The nodes that a tree's own state is written with."""

_PLACES: Final = {
    TREE: ((("DictNode", "tree_"), ("ObjectNode", None)), GROWN_TREES),
    PREDICTOR: (
        (("ListNode", None), ("ListNode", None), ("DictNode", "_predictors"), ("ObjectNode", None)),
        HISTOGRAMS,
    ),
}
"""What holds a tree, from the nearest: the kind of each node, with the key in it where it matters, and the last one's types."""


def load(content: bytes, trusted: Collection[str]) -> Any:
    """The pipeline in a file's content.

    Args:
        content: of a .skops file that skops reads.
        trusted: the types that may be built besides those that skops trusts.

    Raises:
        InvalidInputError: a tree is damaged, or made to harm; says how.
        UnknownUseError: trees are where scikit-learn puts none; nothing that uses them was run.
        Exception: whatever skops raises, types that are not trusted among it.
    """
    try:
        from skops.io._audit import audit_tree, get_tree
        from skops.io._utils import LoadContext
    except ImportError as error:  # they are no part of its interface
        raise UnknownUseError("this release of skops does not show what it reads") from error

    with ZipFile(io.BytesIO(content)) as file:
        schema = json.loads(file.read("schema.json"))
        known = [*trusted, *TREE_TYPES]
        root = get_tree(schema, LoadContext(src=file, protocol=schema["protocol"]), trusted=known)
        audit_tree(root, trusted=known)
        edges = list(_edges(root))
        nodes = list({id(node): node for node in (root, *(child for _, _, child in edges))}.values())
        _check_places(nodes, edges)
        for node in nodes:
            if _kind(node) == "TreeNode":
                check_tree(node.children["args"].construct(), node.children["attrs"].construct())
        pipeline = root.construct()
        for node in nodes:
            if _kind(node) == "ObjectNode" and _type(node) in HOLDERS:
                check_holder(node.construct())
    return pipeline


_Edge = tuple[Any, str | None, Any]
"""A node, the key under which it holds another, and that one."""
_Place = tuple[Sequence[tuple[str, str | None]], frozenset[str]]


def _edges(root: Any) -> Iterator[_Edge]:
    """Who holds whom, each pair once for each time that it does."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        if type(node).__module__ not in _KNOWN_MODULES:
            raise UnknownUseError(f"the file holds a {_kind(node)} of {type(node).__module__}")
        for key, child in _children(node):
            yield node, key, child
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _children(node: Any) -> Iterator[tuple[str | None, Any]]:
    from skops.io._audit import Node

    for held in node.children.values():
        if isinstance(held, dict):
            yield from held.items()
        elif isinstance(held, list | tuple):
            yield from ((None, child) for child in held)
        elif isinstance(held, Node):
            yield None, held


def _check_places(nodes: Sequence[Any], edges: Sequence[_Edge]) -> None:
    holders: dict[int, list[tuple[str | None, Any]]] = defaultdict(list)
    for parent, key, child in edges:
        holders[id(child)].append((key, parent))
    own_names = {id(node.children["constructor"]) for node in nodes if _kind(node) == "TreeNode"}
    for node in nodes:
        name = TREE if _kind(node) == "TreeNode" else _type(node)
        if name not in TREE_TYPES or id(node) in own_names:
            continue
        if (_type(node), _kind(node)) != (name, _NODE_OF[name]):
            raise UnknownUseError(f"a {_kind(node)} names the type {name}")
        if not _is_placed(node, _PLACES[name], holders):
            raise UnknownUseError("a tree is held by something else than the estimator that grew it")
        if _kind(node) == "TreeNode" and not (_is_plain(node.children["args"]) and _is_plain(node.children["attrs"])):
            raise UnknownUseError("a tree is made of other things than numbers and arrays")


def _is_placed(node: Any, place: _Place, holders: dict[int, list[tuple[str | None, Any]]]) -> bool:
    """Whether the nodes of a place hold a node, and nothing else does."""
    path, types = place
    if not path:
        return _type(node) in types
    (kind, key), *rest = path
    found = holders[id(node)]
    return bool(found) and all(
        _kind(parent) == kind and key in (None, held_as) and _is_placed(parent, (rest, types), holders)
        for held_as, parent in found
    )


def _is_plain(node: Any) -> bool:
    return all(_kind(child) in _PLAIN for child in (node, *(child for _, _, child in _edges(node))))


def _kind(node: Any) -> str:
    return type(node).__name__


def _type(node: Any) -> str:
    return f"{node.module_name}.{node.class_name}"
