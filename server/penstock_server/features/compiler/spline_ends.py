"""What the B-spline basis functions and their slopes are at the two ends of their domain.

`lowering_steps` puts the numbers beside the knots; the kernel continues the functions by them.
"""

from collections.abc import Sequence


def ends(knots: Sequence[float], degree: int) -> list[float]:
    """Values at the low end, slopes there, values at the high end, slopes there: one for each function."""
    last = len(knots) - degree - 1
    low, high = knots[degree], knots[last]
    sides = ((degree, low), (last - 1, high))
    return [number for interval, at in sides for row in _at(knots, degree, interval, at) for number in row]


def _at(knots: Sequence[float], degree: int, interval: int, at: float) -> tuple[list[float], list[float]]:
    functions = len(knots) - degree - 1
    values = _placed(functions, interval - degree, _basis(knots, degree, interval, at))
    if not degree:
        return values, [0.0] * functions
    lower = _placed(functions + 1, interval - degree + 1, _basis(knots, degree - 1, interval, at))
    shares = [
        lower[each] / span if (span := knots[each + degree] - knots[each]) else 0.0 for each in range(functions + 1)
    ]
    return values, [degree * (shares[each] - shares[each + 1]) for each in range(functions)]


def _basis(knots: Sequence[float], degree: int, interval: int, at: float) -> list[float]:
    """The degree + 1 functions that are not zero in an interval, by the recurrence of de Boor and Cox."""
    found = [1.0]
    for order in range(1, degree + 1):
        before, found = found, [0.0] * (order + 1)
        for each in range(1, order + 1):
            right, left = knots[interval + each], knots[interval + each - order]
            weight = before[each - 1] / (right - left)
            found[each - 1] += weight * (right - at)
            found[each] = weight * (at - left)
    return found


def _placed(count: int, first: int, found: list[float]) -> list[float]:
    row = [0.0] * count
    row[first : first + len(found)] = found
    return row
