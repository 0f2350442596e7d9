"""Writes numpy functions into the graph: a function is called once with an array that records what is done to it.

What it records are numpy's and scipy's functions of each value, arithmetic, comparisons, `where` and `clip`. Anything else
ends the call, and the caller says that the graph cannot do it. Whether the record answers alike is proven on the sample.
"""

import numbers
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy import special
from spox import Var

from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def record(function: Callable[..., Any], x: Var, context: Context, arguments: dict[str, Any] | None = None) -> Var:
    """What a function makes of a tensor, value by value.

    Args:
        function: takes and gives an array of the shape of x.
        x: of the graph's datatype.
        context: the graph.
        arguments: further ones that the function is called with.

    Raises:
        NotCompiled: it does something that is not recorded, or gives something else than an array.
    """
    try:
        made = function(Recorded(x, context), **(arguments or {}))
    except NotCompiled:
        raise
    except Exception as error:
        # What a function does with an array that is none may fail in any way.
        raise NotCompiled("its function does something else with its values than to compute with them") from error
    if not isinstance(made, Recorded):
        raise NotCompiled(f"its function gives {type(made).__name__}, whatever the value")
    return context.cast(made.var)


class Recorded(NDArrayOperatorsMixin):
    """An array of which nothing is known but that it is a tensor of the graph."""

    def __init__(self, var: Var, context: Context) -> None:
        self.var = var
        self._context = context

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Called by numpy for each of its and scipy's functions of single values."""
        rule = _FUNCTIONS.get(ufunc)
        if method != "__call__" or rule is None or options:
            raise NotCompiled(f"its function calls {ufunc.__name__}, which the graph cannot")
        return self._made(rule(*(self._operand(each) for each in inputs), self._context))

    def __array_function__(self, function: Any, _: Any, given: Sequence[Any], options: dict[str, Any]) -> Any:
        """Called by numpy for its other functions."""
        if function is np.where and len(given) == 3:
            condition, *values = given
            if not isinstance(condition, Recorded):
                raise NotCompiled("its function chooses by something else than its values")
            return self._made(op.where(condition.var, *(self._operand(each) for each in values)))
        if function is np.clip:
            return self.clip(*given[1:], **options)
        if function in (np.round, np.around):
            return self.round(*given[1:], **options)
        raise NotCompiled(f"its function calls numpy.{function.__name__}, which the graph cannot")

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Called by what wants values."""
        raise NotCompiled("its function reads the values one by one")

    @property
    def ndim(self) -> int:
        """As scikit-learn hands a target over."""
        return 2

    def clip(self, low: Any = None, high: Any = None, **options: Any) -> "Recorded":
        """As numpy's."""
        low, high = options.get("a_min", options.get("min", low)), options.get("a_max", options.get("max", high))
        var = self.var
        if low is not None:
            var = _larger(var, self._operand(low), self._context)
        if high is not None:
            var = _smaller(var, self._operand(high), self._context)
        return self._made(var)

    def round(self, decimals: int = 0) -> "Recorded":
        """As numpy's, half to even."""
        if not decimals:
            return self._made(op.round(self.var))
        scale = self._context.constant(10.0**decimals)
        return self._made(op.div(op.round(op.mul(self.var, scale)), scale))

    def copy(self) -> "Recorded":
        """It never changes."""
        return self

    def astype(self, dtype: Any, **_: Any) -> "Recorded":
        """Floats stay what the graph computes in."""
        if np.dtype(dtype).kind != "f":
            raise NotCompiled(f"its function makes {np.dtype(dtype)} of the values")
        return self

    def _operand(self, value: Any) -> Var:
        if isinstance(value, Recorded):
            return value.var
        if isinstance(value, numbers.Number | np.ndarray):
            return self._context.constant(np.asarray(value, np.float64))
        raise NotCompiled(f"its function computes with {type(value).__name__}")

    def _made(self, var: Var) -> "Recorded":
        return Recorded(var, self._context)


def _larger(x: Var, bound: Var, _: Context) -> Var:
    # Unlike Max, numpy's maximum passes NaN on whichever it is; so does this for x.
    return op.where(op.less(x, bound), bound, x)


def _smaller(x: Var, bound: Var, _: Context) -> Var:
    return op.where(op.greater(x, bound), bound, x)


def _log_with(base: float) -> Callable[[Var, Context], Var]:
    return lambda x, context: op.div(op.log(x), context.constant(np.log(base)))


def _exp_with(base: float) -> Callable[[Var, Context], Var]:
    return lambda x, context: op.pow(context.constant(base), x)


def _expm1(x: Var, context: Context) -> Var:
    return op.sub(op.exp(x), context.constant(1.0))


def _log1p(x: Var, context: Context) -> Var:
    return op.log(op.add(x, context.constant(1.0)))


def _cbrt(x: Var, context: Context) -> Var:
    return op.mul(op.sign(x), op.pow(op.abs(x), context.constant(1 / 3)))


def _inverse_box_cox(x: Var, power: Var, context: Context) -> Var:
    one = context.constant(1.0)
    powered = op.pow(op.add(op.mul(x, power), one), op.div(one, power))
    return op.where(op.equal(power, context.constant(0.0)), op.exp(x), powered)


def _plain(operator: Callable[..., Var]) -> Callable[..., Var]:
    """Leaves the context out."""
    return lambda *operands: operator(*operands[:-1])


_FUNCTIONS: Final[dict[Any, Callable[..., Var]]] = {
    np.add: _plain(op.add),
    np.subtract: _plain(op.sub),
    np.multiply: _plain(op.mul),
    np.true_divide: _plain(op.div),
    np.power: _plain(op.pow),
    np.float_power: _plain(op.pow),
    np.negative: _plain(op.neg),
    np.positive: lambda x, _: x,
    np.absolute: _plain(op.abs),
    np.fabs: _plain(op.abs),
    np.sign: _plain(op.sign),
    np.exp: _plain(op.exp),
    np.expm1: _expm1,
    np.exp2: _exp_with(2.0),
    np.log: _plain(op.log),
    np.log1p: _log1p,
    np.log2: _log_with(2.0),
    np.log10: _log_with(10.0),
    np.sqrt: _plain(op.sqrt),
    np.square: lambda x, _: op.mul(x, x),
    np.cbrt: _cbrt,
    np.reciprocal: _plain(op.reciprocal),
    np.sin: _plain(op.sin),
    np.cos: _plain(op.cos),
    np.tan: _plain(op.tan),
    np.arctan: _plain(op.atan),
    np.sinh: _plain(op.sinh),
    np.cosh: _plain(op.cosh),
    np.tanh: _plain(op.tanh),
    np.arcsinh: _plain(op.asinh),
    np.arctanh: _plain(op.atanh),
    np.floor: _plain(op.floor),
    np.ceil: _plain(op.ceil),
    np.rint: _plain(op.round),
    np.maximum: _larger,
    np.minimum: _smaller,
    np.less: _plain(op.less),
    np.less_equal: _plain(op.less_or_equal),
    np.greater: _plain(op.greater),
    np.greater_equal: _plain(op.greater_or_equal),
    np.equal: _plain(op.equal),
    np.logical_and: _plain(op.and_),
    np.logical_or: _plain(op.or_),
    np.logical_not: _plain(op.not_),
    np.bitwise_and: _plain(op.and_),
    np.bitwise_or: _plain(op.or_),
    np.invert: _plain(op.not_),
    special.expit: _plain(op.sigmoid),
    special.logit: lambda x, context: op.log(op.div(x, op.sub(context.constant(1.0), x))),
    special.exp10: _exp_with(10.0),
    special.erf: _plain(op.erf),
    special.inv_boxcox: _inverse_box_cox,
    special.inv_boxcox1p: lambda x, power, context: op.sub(_inverse_box_cox(x, power, context), context.constant(1.0)),
}
