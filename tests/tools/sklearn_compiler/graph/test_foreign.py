import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import CategoricalNB
from sklearn.svm import SVR, NuSVR, OneClassSVM

from penstock_tools.publish import onnx_graph
from penstock_tools.sklearn_compiler.graph.model import to_onnx

ROWS = np.random.default_rng(0).normal(size=(300, 4))
TWO = (ROWS[:, 0] + ROWS[:, 1] * ROWS[:, 2] > 0).astype(np.int64)
THREE = np.digitize(ROWS[:, 0] + ROWS[:, 1] * ROWS[:, 2], [-0.5, 0.7])
CODES = np.random.default_rng(1).integers(0, 4, size=(300, 4)).astype(np.float64)

ESTIMATORS = {
    "discriminant of two": (LinearDiscriminantAnalysis(), ROWS, TWO),
    "discriminant of three": (LinearDiscriminantAnalysis(), ROWS, THREE),
    "modified huber of two": (SGDClassifier(loss="modified_huber", random_state=0), ROWS, TWO),
    "modified huber of three": (SGDClassifier(loss="modified_huber", random_state=0), ROWS, THREE),
    "logistic loss": (SGDClassifier(loss="log_loss", random_state=0), ROWS, THREE),
    "categories": (CategoricalNB(), CODES, TWO),
    "vectors": (SVR(), ROWS, ROWS[:, 0]),
    "nu vectors": (NuSVR(), ROWS, ROWS[:, 0]),
    "one class": (OneClassSVM(nu=0.2), ROWS, None),
}


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize(("estimator", "rows", "answer"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_estimators_answer_alike_in_both_datatypes(estimator, rows, answer, datatype):
    fitted = estimator.fit(rows, answer)
    made = onnx_graph.read(to_onnx(fitted, 4, datatype)).runtime
    given = rows.astype(np.float32 if datatype == "FP32" else np.float64)
    got = dict(
        zip(
            [output.name for output in made.signature.outputs],
            made.run({made.signature.inputs[0].name: given}),
            strict=True,
        )
    )
    asks = {
        "prediction": "predict",
        "label": "predict",
        "probabilities": "predict_proba",
        "scores": "decision_function",
    }
    for name, values in got.items():
        expected = np.asarray(getattr(fitted, asks[name])(given)).reshape(values.shape)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
