import json
import re

import pytest
from openapi_spec_validator import validate

from penstock_server.errors import NotFoundError
from penstock_server.rest.feedback import _Body, feedback_message
from penstock_server.rest.openapi import ASSETS, asset, docs_page, document, index_page
from penstock_server.rest.paths import find
from penstock_server.rest.predictions import instance_rows, invocation_rows, predict_rows
from penstock_server.rest.rows import Options, message_of, signature_of
from tests.server.rest.models import columns_model, image_model, matrix_model, tensors_model

MODELS = [
    columns_model(),
    columns_model("with space & <b>"),
    matrix_model(),
    matrix_model("named", "a", "b"),
    image_model(),
    tensors_model(),
]


def test_the_document_is_one_of_openapi() -> None:
    validate(json.loads(json.dumps(document(MODELS, "1.2"))))
    validate(json.loads(json.dumps(document([], "1.2"))))


def test_every_path_is_answered() -> None:
    for path, verbs in document(MODELS, "1")["paths"].items():
        for verb in verbs:
            assert find(verb.upper().encode(), path.replace(" ", "%20").encode()).name


@pytest.mark.parametrize("metadata", MODELS, ids=lambda metadata: metadata.name)
def test_the_examples_are_taken(metadata: object) -> None:
    signature = signature_of(metadata)  # type: ignore[arg-type]
    paths = document([metadata], "1")["paths"]  # type: ignore[list-item]
    readers = {
        f"/predict/{signature.model}": lambda body: predict_rows(body, signature),
        f"/invocations/{signature.model}": lambda body: invocation_rows(body, "", signature),
        f"/v1/models/{signature.model}:predict": lambda body: instance_rows(body, signature),
    }
    for path, read in readers.items():
        for example in paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"].values():
            assert message_of(signature, read(json.dumps(example["value"]).encode()), Options())


def test_only_a_model_that_explains_offers_it() -> None:
    paths = document(MODELS, "1")["paths"]
    assert "explain" in {each["name"] for each in paths["/predict/fraud"]["post"]["parameters"]}
    assert "explain" not in {each["name"] for each in paths["/predict/amount"]["post"]["parameters"]}


def test_the_first_page_names_each_model_and_how_to_ask() -> None:
    page = index_page(MODELS, "1.2").decode()
    assert "version 1.2" in page
    assert re.search(r"curl HOST/predict/fraud -d '\{&#34;amount&#34;: 1.5, &#34;country&#34;: &#34;text&#34;", page)
    assert "with space &amp; &lt;b&gt;" in page
    assert "<b>" not in page
    assert "No model is served now" in index_page([], "1").decode()


def test_the_docs_take_only_files_that_are_there() -> None:
    page = docs_page().decode()
    for name in re.findall(r'(?:src|href)="docs/([^"]+)"', page):
        content, kind = asset(name)
        assert len(content) > 100
        assert kind == ASSETS[name]
    with pytest.raises(NotFoundError, match=r"there is no '../openapi.py' here"):
        asset("../openapi.py")


def test_labels_are_described_as_they_are_read() -> None:
    found = document([], "1")
    operation = found["paths"]["/v1/feedback"]["post"]
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        assert feedback_message(json.dumps(example["value"]).encode(), b"application/json")
    assert set(found["components"]["schemas"]["Feedback"]["properties"]) == set(_Body.__struct_fields__)
