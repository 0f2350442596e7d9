"""What compares a row with the rows that it was fitted on by a kernel, and transformers that approximate one.

Distances are taken between centred rows, which costs FP32 fewer digits than between rows far from 0.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from sklearn.decomposition import KernelPCA
from sklearn.kernel_approximation import AdditiveChi2Sampler, Nystroem, RBFSampler, SkewedChi2Sampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width

_CUBE: Final = 1 << 16
"""How many differences a row may have in a kernel whose distances are no product of matrices."""

Matrix = NDArray[np.float64]
Kernel = Callable[[Var, Matrix, Mapping[str, Any], Context], Var]
"""The kernel between rows [rows, columns] and fixed rows [n, columns], with its parameters: [rows, n]."""


def nystroem(sampler: Any, x: Var, context: Context) -> Answer:
    """Nystroem.

    Raises:
        UnsupportedError: its kernel is not one that is known.
    """
    given = {name: getattr(sampler, name) for name in ("gamma", "coef0", "degree")}
    parameters = {name: value for name, value in given.items() if value is not None} | (sampler.kernel_params or {})
    compared = _kernel(sampler.kernel)(x, _dense(sampler.components_), parameters, context)
    return Answer(features=op.matmul(compared, context.constant(sampler.normalization_.T)))


def kernel_pca(components: Any, x: Var, context: Context) -> Answer:
    """KernelPCA.

    Raises:
        UnsupportedError: its kernel is not one that is known.
    """
    parameters = {"gamma": components.gamma_, "degree": components.degree, "coef0": components.coef0}
    compared = (
        x
        if components.kernel == "precomputed"
        else _kernel(components.kernel)(x, _dense(components.X_fit_), parameters, context)
    )
    values = components.eigenvalues_
    scale = np.divide(1.0, np.sqrt(values), out=np.zeros_like(values), where=values != 0)
    centred = _centred(components._centerer, compared, context)  # noqa: SLF001 - no public name
    return Answer(features=op.matmul(centred, context.constant(components.eigenvectors_ * scale)))


def kernel_ridge(model: Any, x: Var, context: Context) -> Answer:
    """KernelRidge.

    Raises:
        UnsupportedError: its kernel is not one that is known.
    """
    given = {name: getattr(model, name) for name in ("gamma", "coef0", "degree")}
    parameters = {name: value for name, value in given.items() if value is not None}
    rows = _dense(model.X_fit_)
    compared = _kernel(model.kernel)(x, rows, parameters, context)
    return Answer(prediction=op.matmul(compared, context.constant(np.reshape(model.dual_coef_, (len(rows), -1)))))


def centerer(fitted: Any, x: Var, context: Context) -> Answer:
    """KernelCenterer."""
    return Answer(features=_centred(fitted, x, context))


def _centred(fitted: Any, compared: Var, context: Context) -> Var:
    rows = np.reshape(fitted.K_fit_rows_, (1, -1))
    own = op.div(op.reduce_sum(compared, op.const([1]), keepdims=1), context.constant(float(rows.shape[1])))
    return op.add(op.sub(op.sub(compared, own), context.constant(rows)), context.constant(float(fitted.K_fit_all_)))


def random_fourier(sampler: Any, x: Var, context: Context) -> Answer:
    """RBFSampler."""
    return Answer(features=_cosines(sampler, x, context))


def skewed(sampler: Any, x: Var, context: Context) -> Answer:
    """SkewedChi2Sampler."""
    return Answer(features=_cosines(sampler, op.log(op.add(x, context.constant(float(sampler.skewedness)))), context))


def _cosines(sampler: Any, x: Var, context: Context) -> Var:
    product = op.matmul(x, context.constant(sampler.random_weights_))
    angles = op.add(product, context.constant(np.reshape(sampler.random_offset_, (1, -1))))
    return op.mul(op.cos(angles), context.constant(np.sqrt(2.0 / sampler.n_components)))


def additive(sampler: Any, x: Var, context: Context) -> Answer:
    """AdditiveChi2Sampler: zeros stay zeros."""
    interval = _interval(sampler)
    is_zero = op.equal(x, context.constant(0.0))
    logarithm = op.mul(op.log(op.where(is_zero, context.constant(1.0), x)), context.constant(interval))
    made = [op.sqrt(op.mul(x, context.constant(interval)))]
    for step in range(1, sampler.sample_steps):
        factor = op.sqrt(op.mul(x, context.constant(2.0 * interval / np.cosh(np.pi * step * interval))))
        angle = op.mul(logarithm, context.constant(float(step)))
        made += [op.mul(factor, op.cos(angle)), op.mul(factor, op.sin(angle))]
    return Answer(features=op.concat(made, axis=1))


def _interval(sampler: Any) -> float:
    """The published ones for 1 to 3 steps, where none was given."""
    given = sampler.sample_interval
    return float({1: 0.8, 2: 0.5, 3: 0.4}[sampler.sample_steps] if given is None else given)


def _dense(rows: Any) -> Matrix:
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, np.float64)


def _kernel(name: Any) -> Kernel:
    known = _KERNELS.get(name) if isinstance(name, str) else None
    if known is None:
        said = getattr(name, "__name__", name)
        raise UnsupportedError(f"the kernel {said} is not one that the graph can compute; {', '.join(_KERNELS)} work")
    return known


def _gamma(parameters: Mapping[str, Any], rows: Matrix) -> float:
    given = parameters.get("gamma")
    return 1.0 / rows.shape[1] if given is None else float(given)


def _product(x: Var, rows: Matrix, context: Context) -> Var:
    return op.matmul(x, context.constant(rows.T))


def _linear(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:  # noqa: ARG001 - a kernel
    return _product(x, rows, context)


def _affine(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:
    product = op.mul(_product(x, rows, context), context.constant(_gamma(parameters, rows)))
    return op.add(product, context.constant(float(parameters.get("coef0", 1.0))))


def _polynomial(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:
    return op.pow(_affine(x, rows, parameters, context), context.constant(float(parameters.get("degree", 3))))


def _sigmoid(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:
    return op.tanh(_affine(x, rows, parameters, context))


def _rbf(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:
    middle = rows.mean(axis=0, keepdims=True)
    centred, own = op.sub(x, context.constant(middle)), rows - middle
    squares = op.reduce_sum(op.mul(centred, centred), op.const([1]), keepdims=1)
    product = op.mul(_product(centred, own, context), context.constant(2.0))
    distance = op.add(op.sub(squares, product), context.constant((own**2).sum(axis=1).reshape(1, -1)))
    distance = op.max([distance, context.constant(0.0)])
    return op.exp(op.mul(distance, context.constant(-_gamma(parameters, rows))))


def _laplacian(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:
    if rows.size > _CUBE:
        raise UnsupportedError(f"a laplacian kernel of {rows.size} values is too much for each row; rbf works")
    distance = op.reduce_sum(op.abs(_differences(x, rows, context)), op.const([2]), keepdims=0)
    return op.exp(op.mul(distance, context.constant(-_gamma(parameters, rows))))


def _differences(x: Var, rows: Matrix, context: Context) -> Var:
    """[rows, n, columns]."""
    return op.sub(op.reshape(x, op.const([-1, 1, width(x)])), context.constant(rows[None]))


def distances(clusters: Any, x: Var, context: Context) -> Answer:
    """KMeans as a transformer: the distance of each centre. Differences first, since a root of a small one is sensitive."""
    differences = _differences(x, _dense(clusters.cluster_centers_), context)
    return Answer(features=op.reduce_l2(differences, op.const([2]), keepdims=0))


def _cosine(x: Var, rows: Matrix, parameters: Mapping[str, Any], context: Context) -> Var:  # noqa: ARG001 - a kernel
    norm = op.reduce_l2(x, op.const([1]), keepdims=1)
    norm = op.where(op.equal(norm, context.constant(0.0)), context.constant(1.0), norm)
    own = np.linalg.norm(rows, axis=1, keepdims=True)
    return _product(op.div(x, norm), rows / np.where(own == 0, 1.0, own), context)


_KERNELS: Final[dict[str, Kernel]] = {
    "linear": _linear,
    "poly": _polynomial,
    "polynomial": _polynomial,
    "rbf": _rbf,
    "sigmoid": _sigmoid,
    "laplacian": _laplacian,
    "cosine": _cosine,
}

RULES: Final = {
    KernelRidge: kernel_ridge,
    Nystroem: nystroem,
    KernelPCA: kernel_pca,
    KernelCenterer: centerer,
    RBFSampler: random_fourier,
    SkewedChi2Sampler: skewed,
    AdditiveChi2Sampler: additive,
}
