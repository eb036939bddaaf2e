"""What crosses between an engine's process and ours: one JSON object a line.

to the child     {"do": "start" | "load" | "ask" | "generate" | "loglikelihood" | "close", ...}
from the child   {"ready"}, {"loaded"}, {"answer"}, {"likelihood"}, {"progress"}, {"refused"}, {"done"}

Batches that are asked have numbers: their answers are {"batch", "answer"}, and each ends with {"batch", "ended"}, where
the text says why it was refused, if it was. No {"done"} follows, and more may be asked before they end.
"""

import json
from collections.abc import Mapping

from m3_exp.types import Prompt, plain

Pair = tuple[Prompt, tuple[int, ...]]  # a prompt and a continuation of it


def line(message: Mapping[str, object]) -> bytes:
    """Write one message; text is escaped to ASCII, so that any string survives (lone surrogates too)."""
    return json.dumps(plain(message), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
