"""The quantile function of the standard normal distribution.

M. J. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988), 477-484:
three rational functions, about 1e-16 relative.
"""

from typing import Final

import numpy as np

from penstock_server.features.kernels.base import c_function, kernel

_log: Final = c_function("log")

# Coefficients from the highest power down: numerator and denominator near the middle, in the tails, and far out.
_MIDDLE: Final = (
    2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
    1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
)  # fmt: skip
_MIDDLE_UNDER: Final = (
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
)  # fmt: skip
_TAIL: Final = (
    7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
    3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0,
)  # fmt: skip
_TAIL_UNDER: Final = (
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0,
)  # fmt: skip
_FAR: Final = (
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
    2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0,
)  # fmt: skip
_FAR_UNDER: Final = (
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0,
)  # fmt: skip


@kernel
def _polynomial(coefficients: tuple[float, ...], at: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * at + coefficient
    return total


@kernel
def normal_quantile(share: float) -> float:
    """The x below which this share of the distribution lies, for a share above 0 and below 1."""
    middle = share - 0.5
    if abs(middle) <= 0.425:
        at = 0.180625 - middle * middle
        return middle * _polynomial(_MIDDLE, at) / _polynomial(_MIDDLE_UNDER, at)
    at = np.sqrt(-_log(share if middle < 0.0 else 1.0 - share))
    if at <= 5.0:
        size = _polynomial(_TAIL, at - 1.6) / _polynomial(_TAIL_UNDER, at - 1.6)
    else:
        size = _polynomial(_FAR, at - 5.0) / _polynomial(_FAR_UNDER, at - 5.0)
    return -size if middle < 0.0 else size
