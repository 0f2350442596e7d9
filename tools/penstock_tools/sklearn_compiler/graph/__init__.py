"""Writes the ONNX graph of a fitted estimator: `model.to_onnx` builds it, `estimators.RULES` say what each class becomes."""
