"""Times, counts and bytes as people read them."""

import pytest

from m3_exp.amounts import about, count, counted, duration, size

DAY, YEAR = 86_400, 365.25 * 86_400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.01, "under 0.1 s"), (0.05, "0.1 s"), (3.14, "3.1 s"), (9.94, "9.9 s"), (9.96, "10 s"),
        (45, "45 s"), (59.4, "59 s"), (59.6, "1 min"), (60, "1 min"), (65, "1 min 05 s"), (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h"), (7500, "2 h 05 min"), (7519, "2 h 05 min"),
        (2 * DAY - 61, "47 h 59 min"),
        (2 * DAY - 1, "2 days"), (2 * DAY, "2 days"), (330 * DAY, "330 days"), (2 * YEAR, "2 years"),
        (12.3 * YEAR, "12 years"), (25_000 * YEAR, "25,000 years"), (1.5e9 * YEAR, "1.5 B years"),
    ],
)  # fmt: skip
def test_a_time_is_said_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "about 1 s"), (0.9, "about 1 s"), (3.4, "about 3 s"), (9.9, "about 10 s"), (43, "about 45 s"),
        (58, "about 1 min"), (59.6, "about 1 min"), (95, "about 2 min"), (170, "about 3 min"), (3590, "about 1 h"),
        (7444, "about 2 h 05 min"), (13.2 * 3600, "about 13 h"), (47.9 * 3600, "about 2 days"),
        (330.4 * DAY, "about 330 days"),
        (12.3 * YEAR, "about 12 years"),
    ],
)  # fmt: skip
def test_an_estimate_is_no_finer_than_it_can_be(seconds: float, text: str) -> None:
    assert about(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (0.437, "0.44"), (7, "7"), (7.0, "7"), (321.6, "322"), (999, "999"), (9120, "9,120"),
        (99_999, "99,999"),
        (99_999.4, "99,999"), (99_999.6, "100 K"), (100_000, "100 K"), (123_456, "123 K"), (999_499, "999 K"),
        (999_500, "1 M"), (553_000_000, "553 M"), (999_600_000, "1 B"), (1.5e9, "1.5 B"), (2.345e12, "2.35 T"),
        (1.5e16, "15,000 T"),
    ],
)  # fmt: skip
def test_a_count_is_exact_or_has_three_digits(number: float, text: str) -> None:
    assert count(number) == text


def test_a_noun_follows_its_count() -> None:
    said = [counted(n, "cell") for n in (0, 1, 2, 553_000_000)]
    assert said == ["0 cells", "1 cell", "2 cells", "553 M cells"]
    assert [counted(n, "pass", "passes") for n in (1, 3)] == ["1 pass", "3 passes"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (26_031_728_640, "26 GB"),
        (1.234e9, "1.23 GB"), (1.5e16, "15,000 TB"), (1.5e19, "15,000,000 TB"),
    ],
)  # fmt: skip
def test_bytes_are_decimal(number: float, text: str) -> None:
    assert size(number) == text
