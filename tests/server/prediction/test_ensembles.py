from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotReadyError
from penstock_server.models.artifact import Artifact, read
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable
from penstock_server.prediction.ensembles import MAX_CHOICES, BoundExecutors, bind
from penstock_server.prediction.routing_table import ServedModel
from penstock_server.rollout.plan import Arm, TrafficPlan

HEAD = '[inputs.x]\ndatatype = "FP32"\nshape = [-1, 2]\n[outputs.y]\ndatatype = "FP32"\nshape = [-1, 2]\n'
Models = dict[str, ServedModel]


def chain(folder: Path, *models: str, version: int | None = None) -> Artifact:
    """A pipeline in which each model takes what the former one gives."""
    (folder / "1").mkdir()
    names = ["x", *(f"t{at}" for at in range(1, len(models))), "y"]
    own = "" if version is None else f"version = {version}\n"
    steps = [
        f'[[steps]]\nmodel = "{model}"\n{own}inputs = {{ x = "{names[at]}" }}\noutputs = {{ y = "{names[at + 1]}" }}\n'
        for at, model in enumerate(models)
    ]
    (folder / "1" / "pipeline.toml").write_text(HEAD + "".join(steps))
    return read(folder / "1")


@pytest.fixture(scope="module")
def serve(write_onnx: Callable[..., Path]) -> Callable[..., ServedModel]:
    path = write_onnx([("Neg", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])])
    model = OnnxModel(path)

    def make(name: str, plan: TrafficPlan | None, versions: str = "12") -> ServedModel:
        executors: Any = {
            version: SimpleNamespace(
                servable=OnnxServable((name, version), Artifact(path.parent, path), model, None), by_key=None
            )
            for version in versions
        }
        return ServedModel(name, plan, executors)

    return make


CANARY = TrafficPlan("1", (Arm("2", 0.5),))


def test_without_canaries_there_is_one_choice(serve: Any, tmp_path: Path) -> None:
    bound = bind(chain(tmp_path, "a", "b"), {"a": serve("a", TrafficPlan("2")), "b": serve("b", TrafficPlan("1"))})
    ((choice, steps),) = bound.steps.items()
    assert choice == ("2", "1")
    assert [step.servable.key for step in steps if step.servable] == [("a", "2"), ("b", "1")]
    made = BoundExecutors(bound, lambda steps: SimpleNamespace(steps=steps, by_key=None))  # type: ignore[arg-type, return-value]
    assert made.first.by_key is None


def test_a_key_meets_the_versions_that_it_meets_at_the_models(serve: Any, tmp_path: Path) -> None:
    models = {"a": serve("a", CANARY), "b": serve("b", TrafficPlan("1")), "c": serve("c", CANARY)}
    bound = bind(chain(tmp_path, "a", "b", "c"), models)
    assert len(bound.steps) == 4
    made = BoundExecutors(bound, lambda steps: SimpleNamespace(steps=steps, by_key=None))  # type: ignore[arg-type, return-value]
    assert made.first.by_key == made.of_key
    met = set()
    for number in range(200):
        key = f"customer {number}"
        found: Any = made.of_key(key)
        versions = tuple(step.servable.key[1] for step in found.steps)
        assert versions == tuple(models[name].plan.choose(name, key)[0] for name in "abc")
        met.add(versions)
    assert met == {("1", "1", "1"), ("2", "1", "1"), ("1", "1", "2"), ("2", "1", "2")}
    assert {id(made.of_key("")) for _ in range(100)} == set(map(id, made.every))


def test_each_canary_of_a_model_is_a_choice(serve: Any, tmp_path: Path) -> None:
    plan = TrafficPlan("1", (Arm("2", 0.3), Arm("3", 0.3, "canary-b"), Arm("1", 0.0, "canary-c")))
    bound = bind(chain(tmp_path, "a"), {"a": serve("a", plan, "123")})
    assert [*bound.steps] == [("1",), ("2",), ("3",)]
    assert {bound.choice(f"customer {number}") for number in range(50)} == {("1",), ("2",), ("3",)}


def test_a_step_may_name_its_version(serve: Any, tmp_path: Path) -> None:
    bound = bind(chain(tmp_path, "a", version=2), {"a": serve("a", None)})
    ((_, (step,)),) = bound.steps.items()
    assert step.servable is not None
    assert step.servable.key == ("a", "2")


def test_what_is_missing_is_said(serve: Any, tmp_path: Path) -> None:
    artifact = chain(tmp_path, "a")
    with pytest.raises(NotReadyError, match="model 'a' is not there"):
        bind(artifact, {})
    with pytest.raises(NotReadyError, match="model 'a' has no version ready"):
        bind(artifact, {"a": serve("a", None)})


def test_choices_are_bounded(serve: Any, tmp_path: Path) -> None:
    names = "abcd"
    assert 2 ** len(names) > MAX_CHOICES
    with pytest.raises(
        InvalidInputError, match="its 4 models have 16 choices of champions and canaries, expected 8 at most"
    ):
        bind(chain(tmp_path, *names), {name: serve(name, CANARY) for name in names})


def test_what_is_bound_is_told_apart_by_versions_and_plans(serve: Any, tmp_path: Path) -> None:
    artifact, served = chain(tmp_path, "a"), serve("a", TrafficPlan("1"))
    bound = bind(artifact, {"a": served})
    assert bound.is_like(bind(artifact, {"a": served}))
    assert not bound.is_like(bind(artifact, {"a": serve("a", TrafficPlan("1"))}))  # other files
    changed = ServedModel("a", TrafficPlan("2"), served.executors)
    assert not bound.is_like(bind(artifact, {"a": changed}))
