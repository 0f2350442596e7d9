"""Fitted scikit-learn pipelines, made into a feature specification and an estimator for ONNX, and proven equal.

`compiler` walks the pipeline, the files named `rules_*` say what each transformer becomes, `proof` compares, `files` reads
pipelines and samples. `penstock_tools.publish.onnx` and the commands call them.
"""
