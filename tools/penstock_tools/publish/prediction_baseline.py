"""The drift baseline of a model's answers: what it says about the rows that its columns' baseline was fitted on.

Decides which of its outputs is watched, as serving reads it: the class where there is one, else the single number of each
row. Training and publishing call it, on the rows in the order of time.
"""

import numpy as np

from penstock_server.drift.baseline import Baseline
from penstock_server.drift.fit import fit_classes, fit_number, with_predictions
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.features.table import Table
from penstock_server.prediction.outputs import class_reader, score_output
from penstock_tools.publish.onnx_graph import Graph


def with_answers(baseline: Baseline, graph: Graph, features: FeatureSpec, table: Table) -> Baseline:
    """The baseline with that of the answers; as it is where the model gives neither a class nor one number a row.

    Args:
        baseline: of the columns.
        graph: the model, which takes what the features give.
        features: the specification of the baseline.
        table: the rows that the baseline was fitted on.

    Raises:
        ModelFailedError: the model fails on these rows.
    """
    outputs = graph.runtime.run({graph.signature.inputs[0].name: Pipeline(features).transform(table)})
    specs = graph.signature.outputs
    names = tuple(label for label in graph.classes or () if isinstance(label, str))
    reader = class_reader(specs, graph.class_output, names)
    if reader is not None:
        return with_predictions(baseline, fit_classes(graph.class_output or "class", reader(outputs), names))
    at = score_output(specs)
    if at is None or outputs[at].size != len(outputs[at]):
        return baseline
    return with_predictions(baseline, fit_number(specs[at].name, outputs[at].reshape(-1).astype(np.float64)))
