from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.models.artifact import is_ensemble
from penstock_server.models.artifact import read as read_artifact
from penstock_server.models.ensemble import Ensemble, MeanStep, ModelStep, read
from penstock_server.models.signature import TensorInfo
from penstock_server.models.triton_config import read as read_config

HEAD = """
[inputs.x]
datatype = "FP32"
shape = [-1, 2]
[outputs.y]
datatype = "FP32"
shape = [-1, 1]
"""
ONE = '[[steps]]\nmodel = "m"\ninputs = { X = "x" }\noutputs = { Y = "y" }\n'


def version(folder: Path, text: str) -> Path:
    (folder / "1").mkdir(exist_ok=True)
    (folder / "1" / "pipeline.toml").write_text(text)
    return folder / "1"


def ensemble(folder: Path, text: str) -> Ensemble:
    found = read(version(folder, text), None)
    assert found is not None
    return found


def step(gives: str, *reads: str, **more: Any) -> str:
    """A step of a pipeline that gives a tensor."""
    inputs = ", ".join(f'i{at} = "{name}"' for at, name in enumerate(reads))
    lines = [f"{name} = {value}" for name, value in more.items()]
    return "\n".join(
        ["[[steps]]", f'model = "to-{gives}"', f"inputs = {{ {inputs} }}", f'outputs = {{ O = "{gives}" }}', *lines, ""]
    )


def test_a_pipeline(tmp_path: Path) -> None:
    found = ensemble(
        tmp_path,
        HEAD
        + ONE
        + '[[steps]]\nname = "again"\nmodel = "m"\nversion = 3\ninputs = { X = "x" }\noutputs = { Y = "y" }\nwhen = { x = 1 }\n'
        + '[[steps]]\nmean = ["y", "y"]\nweights = [1, 3]\noutput = "z"\n',
    )
    assert found == Ensemble(
        (TensorInfo("x", "FP32", (-1, 2)),),
        (TensorInfo("y", "FP32", (-1, 1)),),
        has_rows=True,
        steps=(
            ModelStep("m", "m", {"X": "x"}, {"Y": "y"}),
            ModelStep("again", "m", {"X": "x"}, {"Y": "y"}, "3", ("x", 1)),
            MeanStep("mean of y, y", ("y", "y"), "z", (1.0, 3.0)),
        ),
    )
    assert found.models == ("m",)


def test_an_artifact_is_its_folder(tmp_path: Path) -> None:
    folder = version(tmp_path, HEAD + ONE)
    artifact = read_artifact(folder)
    assert (artifact.model_path, artifact.ensemble) == (folder, ensemble(tmp_path, HEAD + ONE))
    assert is_ensemble(folder)
    (tmp_path / "2").mkdir()
    assert not is_ensemble(tmp_path / "2")


def test_steps_run_behind_what_they_read(tmp_path: Path) -> None:
    text = HEAD + step("y", "a", "b") + step("b", "a") + step("a", "x")
    assert [each.name for each in ensemble(tmp_path, text).steps] == ["to-a", "to-b", "to-y"]


def test_who_gives_a_tensor_again_runs_later_and_readers_last(tmp_path: Path) -> None:
    text = HEAD + step("y", "a") + step("a", "x", name='"first"') + step("a", "x", name='"second"', when="{ x = 1 }")
    assert [each.name for each in ensemble(tmp_path, text).steps] == ["first", "second", "to-y"]


@given(order=st.permutations(range(6)))
def test_any_order_of_a_file_runs_in_the_one_that_works(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    reads = {0: "x", 1: "t0", 2: "t0", 3: "t1", 4: "t3", 5: "t4"}
    gives = {**{at: f"t{at}" for at in range(5)}, 5: "y"}
    text = HEAD + "".join(step(gives[at], reads[at]) for at in order)
    names = [each.gives[0] for each in ensemble(tmp_path_factory.mktemp("m"), text).steps]
    assert all(reads[at] == "x" or names.index(reads[at]) < names.index(gives[at]) for at in order)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "it is not TOML"),
        (HEAD, "missing required field `steps`"),
        (HEAD + ONE + "nome = 1\n", "unknown field `nome`"),
        ("steps = []\n" + HEAD, "it has 0 steps, expected 1 to 32"),
        (HEAD + ONE * 33, "it has 33 steps, expected 1 to 32"),
        (HEAD.replace("FP32", "FLOAT") + ONE, "input 'x' has datatype 'FLOAT', expected one of BYTES"),
        (HEAD.replace("[-1, 2]", "[-1, 0]") + ONE, r"input 'x' has shape \[-1, 0\], expected sizes"),
        (HEAD + '[[steps]]\nmodel = "m"\nmean = ["x"]\n', "step 1 needs either a model or a mean, and has both"),
        (HEAD + '[[steps]]\nname = "n"\n', "step 1 needs either a model or a mean, and has neither"),
        (HEAD + '[[steps]]\nmean = ["x"]\n', "step 1 is a mean, expected mean, output and weights alone"),
        (
            HEAD + '[[steps]]\nmean = ["x"]\noutput = "y"\nweights = [0]\n',
            r"weights \[0.0\], expected 1 whose sum is not 0",
        ),
        (HEAD + ONE + 'output = "y"\n', "step 1 asks a model, expected no output"),
        (HEAD + ONE + "when = { x = 1, y = 2 }\n", "step 1 runs when 2 tensors have values, expected one"),
        (HEAD + '[[steps]]\nmodel = "m"\noutputs = { Y = "y" }\n', "step 'm' reads or gives no tensor"),
        (HEAD + step("x", "y"), "step 'to-x' gives 'x', which is an input"),
        (HEAD + step("y", "a"), "step 'to-y' needs tensor 'a', which no step gives and no input is"),
        (HEAD + step("a", "x"), "the ensemble needs tensor 'y', which no step gives"),
        (HEAD + step("a", "b") + step("b", "a") + step("y", "x"), "wait for each other in a circle: 'to-a', 'to-b'"),
        (HEAD + step("y", "y"), "wait for each other in a circle: 'to-y'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^pipeline.toml: .*{words}"):
        ensemble(tmp_path, text)


STEP = (
    "step { model_name: '%s' model_version: %d input_map { key: 'X' value: '%s' } output_map { key: 'Y' value: '%s' } }"
)


def tritons(folder: Path, *steps: str, rows: int = 4) -> Ensemble:
    (folder / "1").mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(
        f"platform: 'ensemble' max_batch_size: {rows} input {{ name: 'x' data_type: TYPE_FP32 dims: 2 }} "
        f"output {{ name: 'y' data_type: TYPE_STRING dims: 1 }} ensemble_scheduling {{ {' '.join(steps)} }}"
    )
    found = read(folder / "1", read_config(folder))
    assert found is not None
    return found


def test_tritons_form(tmp_path: Path) -> None:
    found = tritons(tmp_path, STEP % ("b", 7, "t", "y"), STEP % ("a", -1, "x", "t"))
    assert found.inputs == (TensorInfo("x", "FP32", (-1, 2)),)
    assert found.outputs == (TensorInfo("y", "BYTES", (-1, 1)),)
    assert [(each.name, getattr(each, "version", None)) for each in found.steps] == [("a", ""), ("b", "7")]
    assert not tritons(tmp_path, STEP % ("a", -1, "x", "y"), rows=0).has_rows


def test_triton_gives_a_tensor_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^config.pbtxt: several steps give tensor 'y', expected one"):
        tritons(tmp_path, STEP % ("a", -1, "x", "y"), STEP % ("b", -1, "x", "y"))


@given(data=st.data())
def test_damage_ends_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    text = list(HEAD + step("a", "x") + step("y", "a", when="{ a = 1 }"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 12))] = data.draw(st.text(max_size=8))
    folder = tmp_path_factory.mktemp("m")
    (folder / "pipeline.toml").write_text("".join(text), encoding="utf-8", errors="replace", newline="")
    with suppress(InvalidInputError):
        found = read(folder, None)
        assert found is not None
        assert found.steps
