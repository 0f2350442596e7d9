"""What multiplies by a matrix: components, factors, random projections, discriminants, pooled columns, partial least squares.

The mean is subtracted before the product, where scikit-learn subtracts the product of the mean: in FP32 that is closer.
"""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike
from scipy import linalg, sparse
from sklearn.cluster import FeatureAgglomeration
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def principal(components: Any, x: Var, context: Context) -> Answer:
    """PCA and IncrementalPCA, perhaps whitened."""
    matrix = np.asarray(components.components_, np.float64)
    if components.whiten:
        scale = np.sqrt(components.explained_variance_)
        # As scikit-learn bounds it: a variance of 0 would divide by 0.
        matrix = matrix / np.maximum(scale, np.finfo(scale.dtype).eps).reshape(-1, 1)
    return _projected(x, matrix.T, context, components.mean_)


def factors(analysis: Any, x: Var, context: Context) -> Answer:
    """FactorAnalysis."""
    loadings = analysis.components_ / analysis.noise_variance_
    covariance = linalg.inv(np.eye(len(analysis.components_)) + loadings @ analysis.components_.T)
    return _projected(x, loadings.T @ covariance, context, analysis.mean_)


def independent(components: Any, x: Var, context: Context) -> Answer:
    """FastICA."""
    return _projected(x, components.components_.T, context, components.mean_ if components.whiten else None)


def plain(projection: Any, x: Var, context: Context) -> Answer:
    """TruncatedSVD, NeighborhoodComponentsAnalysis, GaussianRandomProjection and SparseRandomProjection."""
    matrix = projection.components_
    return _projected(x, (matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)).T, context)


def discriminants(analysis: Any, x: Var, context: Context) -> Answer:
    """LinearDiscriminantAnalysis as a transformer."""
    scalings = analysis.scalings_[:, : analysis._max_components]  # noqa: SLF001 - no public name
    return _projected(x, scalings, context, analysis.xbar_ if analysis.solver == "svd" else None)


def pooled(agglomeration: Any, x: Var, context: Context) -> Answer:
    """FeatureAgglomeration by means.

    Raises:
        UnsupportedError: it pools by another function.
    """
    if agglomeration.pooling_func is not np.mean:
        raise UnsupportedError("FeatureAgglomeration pools by a function of its own; pooling_func=numpy.mean works")
    groups = agglomeration.labels_[:, None] == np.unique(agglomeration.labels_)
    return _projected(x, groups / groups.sum(axis=0), context)


def regressed(squares: Any, x: Var, context: Context) -> Answer:
    """PLSRegression, PLSCanonical and CCA as regressors."""
    product = _projected(x, squares.coef_.T, context, squares._x_mean).features  # noqa: SLF001
    assert product is not None  # It is a projection.
    return Answer(prediction=op.add(product, context.constant(np.reshape(squares.intercept_, (1, -1)))))


def _projected(x: Var, matrix: ArrayLike, context: Context, mean: ArrayLike | None = None) -> Answer:
    centred = x if mean is None else op.sub(x, context.constant(np.reshape(mean, (1, -1))))
    return Answer(features=op.matmul(centred, context.constant(matrix)))


RULES: Final = {
    PCA: principal,
    IncrementalPCA: principal,
    FactorAnalysis: factors,
    FastICA: independent,
    TruncatedSVD: plain,
    NeighborhoodComponentsAnalysis: plain,
    GaussianRandomProjection: plain,
    SparseRandomProjection: plain,
    FeatureAgglomeration: pooled,
    PLSRegression: regressed,
    PLSCanonical: regressed,
    CCA: regressed,
}
