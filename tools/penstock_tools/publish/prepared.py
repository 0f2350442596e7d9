"""A pipeline that is proven and not registered: what `pipeline` makes, `summary` shows and `register` publishes."""

from dataclasses import dataclass

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec
from penstock_tools.publish.onnx_graph import Graph
from penstock_tools.sklearn_compiler.compiler import Compiled


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pipeline that is proven and not registered.

    Attributes:
        compiled: its two halves.
        pipeline: the specification with the graph's datatype, ready to run.
        graph: the model, opened.
        step_difference: the largest between a compiled transformer and scikit-learn's, as a share of the column's largest.
        difference: the largest between the answers, as `proof.check_answers` measures it.
        refused: why a graph of the narrower datatype was not chosen; None where it was, or was not tried.
        notes: sentences for people: what the version refuses, or cannot tell apart, although the pipeline does.
    """

    compiled: Compiled
    pipeline: Pipeline
    graph: Graph
    step_difference: float
    difference: float
    refused: str | None
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> FeatureSpec:
        """The specification."""
        return self.pipeline.spec
