"""Where a function of one number is zero: `scipy.optimize.brentq` to the last bit.

`scipy.optimize` takes a third of a second to import, and this is all that tables need of it.
Source: scipy/optimize/Zeros/brentq.c, after R. P. Brent, Algorithms for Minimization Without Derivatives (1973), ch. 4.
"""

import math
from collections.abc import Callable

_RELATIVE = 2.0**-50  # four units in the last place, scipy's least
_MOST = 100  # steps; bisection alone takes 50


def root(function: Callable[[float], float], a: float, b: float, *, xtol: float = 2e-12) -> float:
    """Return x between a and b with function(x) = 0, to within xtol + 2^-50 |x|.

    Raises:
        ValueError: the function has the same sign at both ends, is not a number, or is not zero anywhere.
    """

    def at(x: float) -> float:
        if math.isnan(value := float(function(x))):
            raise ValueError(f"the function is not a number at {x}")
        return value

    before, now, other = float(a), float(b), float(a)  # the last two points, and the end on the other side of the root
    at_before, at_now = at(before), at(now)
    at_other = at_before
    if at_before == 0:
        return before
    if at_now == 0:
        return now
    if (at_before > 0) == (at_now > 0):
        raise ValueError(f"the function has the same sign at {a} and {b}")
    last = step = now - before
    for _ in range(_MOST):
        if at_before != 0 and at_now != 0 and (at_before > 0) != (at_now > 0):
            other, at_other = before, at_before
            last = step = now - before
        if abs(at_other) < abs(at_now):
            before, now, other = now, other, now
            at_before, at_now, at_other = at_now, at_other, at_now
        least, half = (xtol + _RELATIVE * abs(now)) / 2, (other - now) / 2
        if at_now == 0 or abs(half) < least:
            return now
        tried = math.inf
        if abs(last) > least and abs(at_now) < abs(at_before):
            tried = _interpolated(before, now, other, at_before, at_now, at_other)
        is_short = 2 * abs(tried) < min(abs(last), 3 * abs(half) - least)
        last, step = (step, tried) if is_short else (half, half)
        before, at_before = now, at_now
        now += step if abs(step) > least else least if half > 0 else -least
        at_now = at(now)
    raise ValueError(f"no root between {a} and {b} in {_MOST} steps")


def _interpolated(before: float, now: float, other: float, at_before: float, at_now: float, at_other: float) -> float:
    """Return the step from `now` to where a line through two points, or a hyperbola through three, is zero."""
    try:
        if before == other:
            return -at_now * (now - before) / (at_now - at_before)
        slope = (at_before - at_now) / (before - now)
        to_other = (at_other - at_now) / (other - now)
        return -at_now * (at_other * to_other - at_before * slope) / (to_other * slope * (at_other - at_before))
    except ZeroDivisionError:  # no step: the interval is halved
        return math.inf
