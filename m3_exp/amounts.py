"""Times, counts and bytes as people say them: the only place that writes them.

duration(7500), about(170), counted(2, "cell"), count(553e6), size(26e9)
2 h 05 min      about 3 min 2 cells             553 M         26 GB
"""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_YEAR = 365.25 * _DAY
_EXACT = 100_000  # counts below it are written to the last digit
_GRAINS = ((10, 1), (_MINUTE, 5), (_HOUR, _MINUTE), (12 * _HOUR, 5 * _MINUTE), (2 * _DAY, _HOUR))  # up to, rounded to


def duration(seconds: float) -> str:
    """Write a time in its two largest units: `3.1 s`, `45 s`, `3 min 20 s`, `2 h 05 min`, `3 days`, `12 years`."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
    if seconds < _MINUTE - 0.5:
        return f"{seconds:.0f} s"
    if (whole := round(seconds)) < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if (minutes := round(seconds / _MINUTE)) < 2 * _DAY // _MINUTE:
        return _two(minutes, 60, "h", 1, "min")
    if seconds < 2 * _YEAR:
        return f"{seconds / _DAY:.0f} days"
    return f"{count(round(seconds / _YEAR))} years"


def about(seconds: float) -> str:
    """Write an estimate no finer than it can be: `about 3 min`, `about 2 h 05 min`, `about 330 days`."""
    return f"about {rounded(seconds)}"


def rounded(seconds: float) -> str:
    """Write an estimate as `about` does, without the word; no estimate is below 1 s."""
    grain = next((grain for most, grain in _GRAINS if seconds < most), _DAY)
    whole = max(1, round(seconds / grain) * grain)
    return f"{whole} s" if whole < _MINUTE else duration(whole)


def _two(whole: int, of: int, large: str, step: int, small: str) -> str:
    first, second = divmod(whole // step, of)
    return f"{first} {large}" + (f" {second:02d} {small}" if second else "")


def count(number: float) -> str:
    """Write a number: `999`, `9,120`, from 100,000 on with three digits: `553 M`, `1.5 B`; below 10 also `0.44`."""
    if number < 10 and number != round(number):
        return f"{number:.2g}"
    if round(number) < _EXACT:
        return f"{number:,.0f}"
    return _scaled(number, (("", 1.0), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)))


def counted(number: float, noun: str, plural: str = "") -> str:
    """Write a count with its noun: `1 cell`, `2 cells`, `553 M tokens`. `plural`: where it is more than an s."""
    return f"{count(number)} {noun if number == 1 else plural or f'{noun}s'}"


def size(number: float) -> str:
    """Write bytes: `999 B`, `1 MB`, `26 GB` (decimal)."""
    return _scaled(number, (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)))


def _scaled(number: float, units: tuple[tuple[str, float], ...]) -> str:
    """Write a number with three digits in the largest unit of which it holds one, once rounded: 999,500 is `1 M`."""
    unit, scale = max((one for one in units if _three(number / one[1]) >= 1), key=lambda one: one[1], default=units[0])
    return f"{_three(number / scale):,.15g} {unit}".rstrip()


def _three(number: float) -> float:
    return float(f"{number:.3g}")
