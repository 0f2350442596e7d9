"""Writes the expressions of a traced function as operators of the graph.

The graph computes in its own datatype, so that its results are those of the function as far as that goes; the proof of the
whole compares them. Functions of float64 that ONNX lacks are written by those that it has.
"""

from collections.abc import Callable, Sequence
from math import log, pi
from typing import Any, Final, cast

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from penstock_server.features.spec.steps import Compute, Operation
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def emit(step: Compute, x: Var, context: Context) -> Var:
    """What the step gives for x [rows, columns], in the context's datatype [rows, outputs].

    Raises:
        NotCompiled: the graph cannot compute one of its functions.
    """
    writer = _Writer(x, context)
    for operation in step.operations:
        writer.append(operation)
    return op.concat([writer.column(at) for at in step.outputs], axis=1)


class _Writer:
    """The values so far, each [rows, 1]."""

    def __init__(self, x: Var, context: Context) -> None:
        self._x = context.cast(x)
        self._context = context
        shape = x.unwrap_tensor().shape
        self._width = int(shape[1]) if shape is not None and isinstance(shape[1], int) else 0
        self._values: dict[int, Var] = {}
        self._count = self._width

    def column(self, at: int) -> Var:
        if at not in self._values:
            self._values[at] = op.gather(self._x, op.const([at]), axis=1)
        return self._values[at]

    def append(self, operation: Operation) -> None:
        taken = [self.column(at) for at in operation.of]
        self._values[self._count] = self._made(operation, taken)
        self._count += 1

    def _made(self, operation: Operation, taken: Sequence[Var]) -> Var:
        if operation.function == "constant":
            # One for each row: nothing else says how many there are.
            value = np.nan if operation.value is None else operation.value
            zero = op.sub(self._no_nan(), self._no_nan())
            return op.add(zero, self._context.constant([[value]]))
        if operation.function == "where":
            return op.where(self.truth(taken[0]), taken[1], taken[2])
        known = _NUMBERS.get(operation.function)
        if known is not None:
            return cast("Var", known(self._context, *taken))
        answer = _ANSWERS.get(operation.function)
        if answer is None:
            raise NotCompiled(f"the graph cannot compute {operation.function}")
        return op.cast(answer(self, *taken), to=self._context.dtype)

    def _no_nan(self) -> Var:
        first = op.gather(self._x, op.const([0]), axis=1)
        return op.mul(op.cast(op.isnan(first), to=self._context.dtype), self._context.constant(0.0))

    def truth(self, value: Var) -> Var:
        """Whether it is not 0; NaN is."""
        return op.not_(op.equal(value, self._context.constant(0.0)))


def _infinite(_: _Writer, x: Var) -> Var:
    return op.equal(op.abs(x), op.constant(value=np.asarray(np.inf, x.unwrap_tensor().dtype)))


def _finite(writer: _Writer, x: Var) -> Var:
    return op.not_(op.or_(op.isnan(x), _infinite(writer, x)))


_ANSWERS: Final[dict[str, Callable[..., Var]]] = {
    "isnan": lambda _, x: op.isnan(x),
    "isinf": _infinite,
    "isfinite": _finite,
    "logical_not": lambda w, x: op.not_(w.truth(x)),
    "less": lambda _, x, y: op.less(x, y),
    "less_equal": lambda _, x, y: op.less_or_equal(x, y),
    "greater": lambda _, x, y: op.greater(x, y),
    "greater_equal": lambda _, x, y: op.greater_or_equal(x, y),
    "equal": lambda _, x, y: op.equal(x, y),
    "not_equal": lambda _, x, y: op.not_(op.equal(x, y)),
    "logical_and": lambda w, x, y: op.and_(w.truth(x), w.truth(y)),
    "logical_or": lambda w, x, y: op.or_(w.truth(x), w.truth(y)),
    "logical_xor": lambda w, x, y: op.xor(w.truth(x), w.truth(y)),
}


def _constant(context: Context, value: float) -> Var:
    return context.constant(value)


def _scaled(function: Callable[[Var], Var], factor: float) -> Callable[..., Var]:
    return lambda context, x: op.mul(function(x), _constant(context, factor))


def _cube_root(context: Context, x: Var) -> Var:
    return op.mul(op.sign(x), op.pow(op.abs(x), _constant(context, 1 / 3)))


def _remainder(context: Context, x: Var, y: Var) -> Var:
    rest = op.mod(x, y, fmod=1)
    zero = _constant(context, 0.0)
    differs = op.and_(op.not_(op.equal(rest, zero)), op.xor(op.less(rest, zero), op.less(y, zero)))
    return op.where(differs, op.add(rest, y), rest)


def _floor_divide(context: Context, x: Var, y: Var) -> Var:
    exact = op.div(op.sub(x, _remainder(context, x, y)), y)
    return op.where(op.equal(y, _constant(context, 0.0)), op.div(x, y), op.round(exact))


def _with_nan(function: Callable[[Var, Var], Var]) -> Callable[..., Var]:
    def compute(_: Context, x: Var, y: Var) -> Var:
        return op.where(op.isnan(x), x, op.where(op.isnan(y), y, function(x, y)))

    return compute


def _without_nan(function: Callable[[Var, Var], Var]) -> Callable[..., Var]:
    def compute(_: Context, x: Var, y: Var) -> Var:
        return op.where(op.isnan(x), y, op.where(op.isnan(y), x, function(x, y)))

    return compute


def _tan(_: Context, x: Var) -> Var:
    # onnxruntime has tan, atan, asin and acos in float32 alone.
    return op.div(op.sin(x), op.cos(x))


def _arctan(context: Context, x: Var) -> Var:
    """Newton's steps from what float32 holds, of 1 / x where x is large: each doubles the digits."""
    one = _constant(context, 1.0)
    is_large = op.greater(op.abs(x), one)
    near = op.where(is_large, op.reciprocal(x), x)
    found = op.cast(op.atan(op.cast(near, to=np.float32)), to=context.dtype)
    for _ in range(2):
        cosine = op.cos(found)
        found = op.add(found, op.mul(cosine, op.sub(op.mul(near, cosine), op.sin(found))))
    return op.where(is_large, op.sub(op.mul(op.sign(x), _constant(context, pi / 2)), found), found)


def _arcsin(context: Context, x: Var) -> Var:
    one = _constant(context, 1.0)
    return _arctan(context, op.div(x, op.sqrt(op.mul(op.sub(one, x), op.add(one, x)))))


def _arccos(context: Context, x: Var) -> Var:
    one = _constant(context, 1.0)
    half = _arctan(context, op.sqrt(op.div(op.sub(one, x), op.add(one, x))))
    return op.mul(_constant(context, 2.0), half)


def _arctan2(context: Context, y: Var, x: Var) -> Var:
    zero = _constant(context, 0.0)
    base = _arctan(context, op.div(y, x))
    turned = op.where(op.less(y, zero), _constant(context, -pi), _constant(context, pi))
    found = op.where(op.less(x, zero), op.add(base, turned), base)
    upright = op.mul(op.sign(y), _constant(context, pi / 2))
    return op.where(op.equal(x, zero), upright, found)


def _log1p(context: Context, x: Var) -> Var:
    """Kahan's form, which keeps small numbers: log(1 + x) x / ((1 + x) - 1)."""
    one = _constant(context, 1.0)
    above = op.add(one, x)
    rest = op.sub(above, one)
    is_plain = op.or_(op.equal(rest, _constant(context, 0.0)), op.not_(op.less(op.abs(x), one)))
    exact = op.div(op.mul(op.log(above), x), op.where(is_plain, one, rest))
    return op.where(op.equal(rest, _constant(context, 0.0)), x, op.where(op.less(op.abs(x), one), exact, op.log(above)))


def _expm1(context: Context, x: Var) -> Var:
    """Kahan's form, which keeps small numbers: (e^x - 1) x / log(e^x)."""
    one = _constant(context, 1.0)
    power = op.exp(x)
    less = op.sub(power, one)
    is_small = op.less(op.abs(x), _constant(context, 0.5))
    is_one = op.equal(power, one)
    safe = op.where(op.and_(is_small, op.not_(is_one)), op.log(power), one)
    exact = op.div(op.mul(less, x), safe)
    return op.where(is_one, x, op.where(is_small, exact, less))


_NUMBERS: Final[dict[str, Callable[..., Any]]] = {
    "abs": lambda _, x: op.abs(x),
    "arccos": _arccos,
    "arcsin": _arcsin,
    "arctan": _arctan,
    "cbrt": _cube_root,
    "ceil": lambda _, x: op.ceil(x),
    "cos": lambda _, x: op.cos(x),
    "cosh": lambda c, x: op.mul(op.add(op.exp(x), op.exp(op.neg(x))), _constant(c, 0.5)),
    "exp": lambda _, x: op.exp(x),
    "exp2": lambda c, x: op.exp(op.mul(x, _constant(c, log(2)))),
    "expm1": _expm1,
    "floor": lambda _, x: op.floor(x),
    "log": lambda _, x: op.log(x),
    "log10": _scaled(op.log, 1 / log(10)),
    "log1p": _log1p,
    "log2": _scaled(op.log, 1 / log(2)),
    "negative": lambda _, x: op.neg(x),
    "reciprocal": lambda _, x: op.reciprocal(x),
    "rint": lambda _, x: op.round(x),
    "sign": lambda _, x: op.where(op.isnan(x), x, op.sign(x)),
    "sin": lambda _, x: op.sin(x),
    "single": lambda c, x: c.cast(op.cast(x, to=np.float32)),
    "sinh": lambda c, x: op.mul(op.sub(op.exp(x), op.exp(op.neg(x))), _constant(c, 0.5)),
    "sqrt": lambda _, x: op.sqrt(x),
    "square": lambda _, x: op.mul(x, x),
    "tan": _tan,
    "tanh": lambda _, x: op.tanh(x),
    "trunc": lambda _, x: op.mul(op.sign(x), op.floor(op.abs(x))),
    "add": lambda _, x, y: op.add(x, y),
    "subtract": lambda _, x, y: op.sub(x, y),
    "multiply": lambda _, x, y: op.mul(x, y),
    "divide": lambda _, x, y: op.div(x, y),
    "power": lambda _, x, y: op.pow(x, y),
    "maximum": _with_nan(lambda x, y: op.max([x, y])),
    "minimum": _with_nan(lambda x, y: op.min([x, y])),
    "fmax": _without_nan(lambda x, y: op.max([x, y])),
    "fmin": _without_nan(lambda x, y: op.min([x, y])),
    "remainder": _remainder,
    "fmod": lambda _, x, y: op.mod(x, y, fmod=1),
    "floor_divide": _floor_divide,
    "arctan2": _arctan2,
    "hypot": lambda _, x, y: op.sqrt(op.add(op.mul(x, x), op.mul(y, y))),
}
