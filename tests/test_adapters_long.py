"""Every kind of adapter that peft makes, on every tiny model: equal to peft's own merge, or refused as it should be."""

from pathlib import Path

import pytest

from tests.adapter_matrix import PAIRS, check, expected


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "base"), PAIRS)
def test_reads_as_peft_merges(matrix: Path, kind: str, base: str) -> None:
    check(kind, base, matrix)


def test_the_matrix_is_as_wide_as_it_says() -> None:
    equal = sum(not expected(kind, base) for kind, base in PAIRS)
    assert len({kind for kind, _ in PAIRS}) >= 35
    assert equal >= 160
