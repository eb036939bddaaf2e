"""What several benchmarks do to a text: the cut at the first stop string, and names of what it asks."""

import hashlib
from collections.abc import Sequence

# The stops of the paper's scripts. The bare words end an answer too, wherever they occur in it.
PAPER_STOPS = ("Instruction:", "Instruction", "Response:", "Response")


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text up to the first occurrence of any stop; a text that is cut already comes back unchanged."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def name_of(statement: str) -> str:
    """Return a problem's name for the note `problem`: equal where statements are, but for case and blank space."""
    return hashlib.sha256(" ".join(statement.casefold().split()).encode("utf-8", "replace")).hexdigest()[:12]
