"""The clients in other languages use the names that the proto has, as each language's generator writes them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import inference_pb2 as pb

DOCUMENT = (Path(__file__).parents[3] / "tools" / "docs" / "clients.md").read_text()
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def code(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return block


def messages(found: Any = None) -> Iterator[Any]:
    for message in found or pb.DESCRIPTOR.message_types_by_name.values():
        yield message
        yield from messages(message.nested_types) if message.nested_types else ()


def camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


FIELDS = {camel(field.name) for message in messages() for field in message.fields}


def go_name(message: Any) -> str:
    """The name of a message in Go: a nested one has its outer one's before it."""
    outer = message.containing_type
    return message.name if outer is None else f"{go_name(outer)}_{message.name}"


def java_name(message: Any) -> str:
    outer = message.containing_type
    return message.name if outer is None else f"{java_name(outer)}.{message.name}"


def test_go_uses_the_protos_names() -> None:
    text = code("go")
    types = {f"New{SERVICE.name}Client", *map(go_name, messages())}
    assert set(re.findall(r"\bpb\.(\w+)", text)) <= types
    assert set(re.findall(r"\bclient\.(\w+)\(", text)) <= {method.name for method in SERVICE.methods}
    used = set(re.findall(r"\b([A-Z]\w+): ", text)) | set(re.findall(r"\.Get([A-Z]\w+)\(", text))
    assert used <= FIELDS
    assert {"ModelName", "Inputs", "RawInputContents", "RawOutputContents"} <= used


def test_java_uses_the_protos_names() -> None:
    text = code("java")
    assert set(re.findall(r"import inference\.Inference\.([\w.]+);", text)) <= set(map(java_name, messages()))
    assert f"import inference.{SERVICE.name}Grpc;" in text
    methods = {method.name[0].lower() + method.name[1:] for method in SERVICE.methods}
    assert set(re.findall(r"SECONDS\)\.(\w+)\(", text)) <= methods
    built = text.partition("newBuilder()")[2].partition(".build();")[0]
    used = set(re.findall(r"\.(?:set|add)([A-Z]\w+)\(", built))
    used |= {name.removesuffix("Count") for name in re.findall(r"(?:reply|\(at\))\.get([A-Z]\w+)\(", text)}
    assert used <= FIELDS
    assert {"ModelName", "Inputs", "RawInputContents", "RawOutputContents"} <= used


def test_java_needs_no_option_of_the_proto() -> None:
    assert pb.DESCRIPTOR.GetOptions().ListFields() == []
    assert pb.DESCRIPTOR.package == "inference"
    assert "Inference" not in {message.name for message in messages()}


@pytest.mark.parametrize("path", ["../examples/node/predict.js"])
def test_files_that_are_named_are_there(path: str) -> None:
    assert f"]({path})" in DOCUMENT
    assert (Path(__file__).parents[3] / "tools" / "docs" / path).resolve().is_file()
