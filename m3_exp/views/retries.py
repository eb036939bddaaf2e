"""Failed cells -> the command lines that try each of them again, as narrow as they compose."""

import contextlib
from collections.abc import Sequence

from m3_exp import config, planning
from m3_exp.command_line import CommandLine
from m3_exp.types import Cell, M3Error

_SPELLED = 20  # failed cells whose own commands are worked out; a second each


def retries(asked: CommandLine, cells: Sequence[Cell]) -> list[str]:
    """Return the command that retries each failed cell; empty texts if more than `_SPELLED` cells failed."""
    known: dict[tuple[str, ...], str] = {}
    return [_retry(asked, cell, known) if len(cells) <= _SPELLED else "" for cell in cells]


def _retry(asked: CommandLine, cell: Cell, known: dict[tuple[str, ...], str]) -> str:
    """Return the narrowest request that composes and contains a cell. `known` remembers which lines compose."""
    *narrow, whole = (asked.with_overrides(*line) for line in config.narrowed(asked.overrides, cell, asked.config_dirs))
    key = (*narrow[0].overrides, cell.recipe.identity)
    if key not in known:
        known[key] = next((line for line in narrow if _holds(line, cell)), whole).line("run")
    return known[key]


def _holds(asked: CommandLine, cell: Cell) -> bool:
    with contextlib.suppress(M3Error):
        return any(planning.same(cell, other) for other in config.compose(asked).plan.cells)
    return False
