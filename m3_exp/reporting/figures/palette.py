"""The one owner of how pictures look: colours, markers, names, sizes and files.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers; every one comes with a marker and a line style,
so that pictures survive a grey printer. Sizes are for a two-column paper: 3.3 inches a column, 6.9 for both, and no
text below 7 points.
"""

import textwrap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m3_exp import benchmarks
from m3_exp.types import Json, M3Error

COLUMN, DOUBLE = 3.3, 6.9  # inches
SMALL = 7  # points: notes, ticks, labels
SPACING = 0.125  # inches from line to line at that size
GREY, FAINT, INK = "#666666", "#E4E4E4", "#1A1A1A"

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

_TICKS = {"labelsize": SMALL, "major.width": 0.6, "major.size": 2.5, "color": INK}
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same bytes on every machine
    "font.size": SMALL,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in _TICKS.items()},
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0.1,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "m3_exp",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


@dataclass(frozen=True)
class Mark:
    """How one series is drawn."""

    colour: str
    marker: str
    line: Any = "-"  # a matplotlib line style


COLOURS: Mapping[str, str] = {
    "black": BLACK, "orange": ORANGE, "sky": SKY, "green": GREEN, "blue": BLUE, "vermillion": VERMILLION,
    "purple": PURPLE, "grey": GREY,
}  # fmt: skip
_OTHERS = tuple(Mark(c, m, (0, (3, 1, 1, 1))) for c, m in ((SKY, "h"), (GREY, "*"), (VERMILLION, "d"), (GREEN, "8")))
METHODS: Mapping[str, Mark] = {
    "average": Mark(GREEN, "s"),
    "task_arithmetic": Mark(BLUE, "o"),
    "ties": Mark(VERMILLION, "D"),
}
PLAIN, MIXED = Mark(BLACK, "o"), Mark(VERMILLION, "D")
DARE, BOTH = Mark(SKY, "^"), Mark(PURPLE, "s")
MEAN, MINIMUM = Mark(BLACK, "o"), Mark(GREY, "v", (0, (4, 1.2)))
# Below 1 the ends are favoured (warm), above 1 the middle (cold); darker is further from the even draw.
ALPHAS: Mapping[float, Mark] = {
    0.2: Mark("#A34700", "", "-"),
    0.4: Mark(VERMILLION, "", (0, (5, 1.5))),
    0.5: Mark(ORANGE, "", (0, (1.5, 1.2))),
    1.0: Mark(BLACK, "", "-"),
    2.0: Mark(SKY, "", (0, (1.5, 1.2))),
    3.0: Mark(BLUE, "", (0, (5, 1.5))),
    5.0: Mark("#003F66", "", "-"),
}

_NAMES: Mapping[str, str] = {
    "lm_math": "LM & Math",
    "lm_code": "LM & Code",
    "math_code": "Math & Code",
    "average": "Average",
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "slerp": "SLERP",
    "nuslerp": "NuSLERP",
    "karcher": "Karcher mean",
    "model_stock": "Model Stock",
    "sce": "SCE",
    "consensus": "Consensus",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "nearswap": "NearSwap",
    "stresstest": "StressTest",
    "deepwordbug": "DeepWordBug",
    "bertattack": "BERTAttack",
}


def name(key: str, width: int = 18) -> str:
    """Return how a benchmark, pair, method or attack is called in pictures; unknown ones shortened in their middle."""
    known = _NAMES.get(key) or benchmarks.about(key).title
    half = (width - 1) // 2
    return known if len(known) <= width else f"{known[:half].rstrip()}…{known[-half:].lstrip()}"


def benchmark(key: str) -> Mark:
    """Return how a benchmark is drawn; one whose class does not say it gets a mark by its name, the same everywhere."""
    look = benchmarks.about(key)
    if not look.marker:
        return _OTHERS[zlib.crc32(key.encode()) % len(_OTHERS)]
    return Mark(COLOURS.get(look.colour, GREY), look.marker, (0, look.dashes) if look.dashes else "-")


def objective(key: str) -> Mark:
    """Return the mark of a benchmark, or of the mean or minimum over several."""
    return {"mean": MEAN, "minimum": MINIMUM}.get(key) or benchmark(key)


def method(key: str) -> Mark:
    return METHODS.get(key) or Mark(PURPLE, "^")


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, without pyplot's global state. Call it under `style()`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style() -> Any:
    """Return the context in which figures are made and saved."""
    return rc_context(STYLE)


def lines_of(notes: Sequence[str], width: float) -> list[str]:
    """Break notes into lines that fit `width` inches at the small size."""
    characters = int(width * 18.5)
    return [line for note in notes for line in textwrap.wrap(note, characters, subsequent_indent="  ")]


def annotate(figure: Figure, notes: Sequence[str]) -> Artist | None:
    """Write notes below everything, within the figure's width."""
    if not notes:
        return None
    text = "\n".join(lines_of(notes, figure.get_figwidth()))
    return figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color=GREY, linespacing=1.15)


# ------------------------------------------------------------------------------------------------------------ files

_METADATA: Mapping[str, Json] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def check(out: Path | None) -> None:
    """Refuse an ending that no figure can have, before any work.

    Raises:
        M3Error: a suffix that is none of svg, pdf, png.
    """
    form = out.suffix.removeprefix(".").lower() if out else ""
    if form and form not in _METADATA:
        raise M3Error(f"--out {out} ends in .{form}; allowed: .svg, .pdf, .png, or no ending for .svg and .png")


def save(figure: Figure, name: str, out: Path | None = None) -> list[Path]:
    """Write a figure and return the files: by the suffix of `out`, else `out` (or NAME) with .svg and with .png.

    The same figure gives the same bytes.

    Raises:
        M3Error: a suffix that is none of svg, pdf, png.
    """
    check(out)
    stem = out or Path(name)
    form = stem.suffix.removeprefix(".").lower()
    paths = [stem] if form else [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "png")]
    stem.parent.mkdir(parents=True, exist_ok=True)
    with style():
        for path in paths:
            form = path.suffix[1:].lower()
            figure.savefig(path, format=form, dpi=300, metadata=_METADATA[form])
    return paths
