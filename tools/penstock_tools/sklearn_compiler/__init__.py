"""Compiles fitted scikit-learn pipelines into a feature specification and an estimator for ONNX, and proves them equal.

`compiler` walks the pipeline, the files named `rules_*` say what each transformer becomes, `proof` compares, `load` reads
pipelines and samples from files.
"""
