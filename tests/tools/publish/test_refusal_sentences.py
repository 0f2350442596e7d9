"""The sentences with which publishing turns files, options and roles away, word by word: what is wrong, and what to give."""

import joblib
import numpy as np
import onnx
import pytest

from penstock_server.errors import PenstockError
from penstock_tools.publish import files as publishing
from penstock_tools.publish import onnx as onnx_models
from penstock_tools.publish import onnx_graph, promote
from penstock_tools.publish.files import Request
from penstock_tools.publish.specification import read_specification
from penstock_tools.sklearn_compiler.load import load_pipeline, read_sample


def publish(name="fraud", **options):
    """Publishes files of a folder, without agreeing to anything."""

    def refused(folder):
        paths = {key: folder / value for key, value in options.items() if key in ("file", "sample", "features")}
        return publishing.publish(Request(name, **options | paths), lambda _: False, lambda _: None)

    return refused


def features(file, sample=None, precision=None):
    return lambda folder: publishing.read_features(
        folder / file, sample and folder / sample, precision, lambda _: False, lambda _: None
    )


def loads(name, content):
    """Loads a file of these bytes."""

    def refused(folder):
        (folder / name).write_bytes(content)
        return load_pipeline(folder / name, lambda _: True)

    return refused


def holds(value):
    def refused(folder):
        joblib.dump(value, folder / "other.joblib")
        return load_pipeline(folder / "other.joblib", lambda _: True)

    return refused


def sample(name, content=b""):
    def refused(folder):
        (folder / name).write_bytes(content)
        return read_sample(folder / name)

    return refused


def specification(name, content):
    def refused(folder):
        (folder / name).write_bytes(content)
        return read_specification(folder / name)

    return refused


def graph(**options):
    return lambda folder: onnx_models.publish("fraud", onnx.load(folder / "small.onnx"), **options)


SENTENCES = {
    "no sample": (
        publish(file="p.skops"),
        "a pipeline is published with sample rows; give --sample DATA",
    ),
    "no sample to compile with": (
        features("p.skops"),
        "a pipeline is compiled with sample rows; give --sample DATA",
    ),
    "a specification for a pipeline": (
        publish(file="p.skops", sample="s.csv", features="before.yaml"),
        "--features is for ONNX models; the specification of {folder}/p.skops is compiled",
    ),
    "labels for a graph": (
        publish(file="small.onnx", labels="truth"),
        "--labels is for pipelines, or for a --holdout; {folder}/small.onnx is an ONNX model",
    ),
    "a precision for a graph": (
        publish(file="small.onnx", precision="FP64"),
        "--precision is for pipelines; {folder}/small.onnx is an ONNX model",
    ),
    "a precision for a specification": (
        features("before.yaml", None, "FP32"),
        "--precision is for pipelines; {folder}/before.yaml says its datatype itself",
    ),
    "a sample of other columns than the graph's": (
        publish(file="small.onnx", sample="s.csv"),
        "the sample has 4 columns (age, city, id, truth), and the model takes a matrix of 3; give these alone, in its order",
    ),
    "labels that are not there": (
        publish(file="p.skops", sample="s.csv", labels="answer"),
        "the sample has no column 'answer'; it has age, city, id, truth",
    ),
    "a name that is none": (
        publish("fraud/new", file="p.skops", sample="s.csv"),
        "the model's name is 'fraud/new'; expected printable characters without '/' and ':'",
    ),
    "a weight alone": (
        publish(file="p.skops", sample="s.csv", weight=5.0),
        "a weight without a role says nothing; give the alias canary too",
    ),
    "a role that is none": (
        publish(file="p.skops", sample="s.csv", alias="champian"),
        "there is no role 'champian'; expected champion, canary, shadow; did you mean 'champion'?",
    ),
    "a champion with a weight": (
        publish(file="p.skops", sample="s.csv", alias="champion", weight=5.0),
        "a champion has no weight: only a canary takes a share of the traffic",
    ),
    "a canary without a weight": (
        publish(file="p.skops", sample="s.csv", alias="canary"),
        "a canary takes a share of the traffic: give its weight, 0 to 100 percent",
    ),
    "a pickle": (
        publish(file="p.joblib", sample="s.csv"),
        "{folder}/p.joblib was not loaded: that would run its code; --trust agrees, and .skops files need not",
    ),
    "another file": (
        publish(file="s.csv", sample="s.csv"),
        "{folder}/s.csv is no pipeline; expected one of .joblib, .pickle, .pkl, .skops",
    ),
    "no such pipeline": (
        publish(file="q.skops", sample="s.csv"),
        "there is no file {folder}/q.skops; expected a pipeline saved with skops or joblib",
    ),
    "no such graph": (
        publish(file="q.onnx"),
        "there is no file {folder}/q.onnx; expected an ONNX model",
    ),
    "bytes that are no skops file": (
        loads("q.skops", b"nonsense"),
        "{folder}/q.skops is no skops file: File is not a zip file; expected one that skops.io.dump wrote",
    ),
    "bytes that are no pickle": (
        loads("q.pkl", b"nonsense"),
        (
            "{folder}/q.pkl does not load: KeyError: 110; "
            "save the fitted pipeline again with the libraries that are installed here"
        ),
    ),
    "a module that is not here": (
        loads("q.pkl", b"cnot_a_module\nThing\n."),
        "{folder}/q.pkl needs the module not_a_module, which is not installed here",
    ),
    "what is no pipeline": (
        holds({"a": 1}),
        "{folder}/other.joblib holds a dict, expected a fitted scikit-learn pipeline",
    ),
    "another sample": (sample("s.txt"), "{folder}/s.txt is no sample; expected .csv or .parquet"),
    "no such sample": (
        lambda folder: read_sample(folder / "t.csv"),
        "there is no file {folder}/t.csv; expected sample rows as .csv or .parquet",
    ),
    "an empty sample": (
        sample("t.csv"),
        "{folder}/t.csv does not read as csv: No columns to parse from file",
    ),
    "a sample without rows": (
        sample("t.csv", b"a,b\n"),
        "{folder}/t.csv holds no rows; expected one at least",
    ),
    "another specification": (
        specification("s.toml", b""),
        "{folder}/s.toml is no feature specification; expected .yaml or .json",
    ),
    "no such specification": (
        lambda folder: read_specification(folder / "gone.yaml"),
        "{folder}/gone.yaml cannot be read: No such file or directory",
    ),
    "a large specification": (
        specification("large.json", b" " * ((64 << 20) + 1)),
        "{folder}/large.json takes 67108865 bytes, expected at most 67108864",
    ),
    "bytes that are no graph": (
        lambda folder: onnx_graph.read(folder / "s.csv"),
        "{folder}/s.csv is no ONNX model: its bytes are not the protobuf of one",
    ),
    "an output that is not there": (
        graph(class_output="klass"),
        "the model has no output 'klass'; it has label, probabilities",
    ),
    "a sample that lacks an input": (
        graph(sample={"x": np.zeros((2, 3))}),
        "the sample lacks input 'X'; expected X",
    ),
    "a champion in two roles": (
        lambda folder: promote.promote("fraud", 1, "champion", also=True),
        "a champion has no other role; --also is for a version that is canary and shadow",
    ),
    "the end of nothing": (
        lambda folder: promote.remove("fraud"),
        "which role is to end? name a version, or a role with --alias",
    ),
}


@pytest.mark.parametrize(("refused", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_a_refusal_is_this_sentence(files, refused, sentence):
    with pytest.raises(PenstockError) as error:
        refused(files)
    assert str(error.value) == sentence.format(folder=files)
