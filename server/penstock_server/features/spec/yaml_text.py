"""YAML as people write it, without the parts of YAML that a hostile file could misuse.

`spec` reads specifications with it, and `models.mlmodel` MLflow's description of a version.
"""

import re
from typing import Any, Final

import yaml

from penstock_server.features.spec.limits import MAX_YAML_BYTES

_BREAKS: Final = re.compile("[\n\r\x85\u2028\u2029]")


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which can turn a small file into a huge tree, and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, expected it written out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.YAMLError(f"the key {key.value!r} appears twice, expected it once")
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as a string, since it has no decimal point.
_FLOAT: Final = ("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(*_FLOAT)


class _Dumper(yaml.SafeDumper):
    """Writes a list of plain values on one line, and never an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - as the base has it
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: Any = None) -> Any:  # noqa: ARG002 - as the base
        is_flat = not any(isinstance(item, dict) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=is_flat)

    def represent_str(self, data: str) -> Any:
        # The other quotes fold these line breaks into spaces when they are read again.
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


# It quotes a text that would be read as a number.
_Dumper.add_implicit_resolver(*_FLOAT)
_Dumper.add_representer(str, _Dumper.represent_str)


def load(data: bytes) -> Any:
    """What the text holds, as dicts, lists and plain values.

    Raises:
        ValueError: it is too large, is not YAML, or has an alias, a repeated key or a custom tag.
    """
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(f"{len(data)} bytes of YAML, expected at most {MAX_YAML_BYTES}")
    try:
        return yaml.load(data, _Loader)  # noqa: S506 - it is a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML as expected: {error}") from error


def dump(tree: Any) -> bytes:
    """The tree as text, its keys in their order."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()
