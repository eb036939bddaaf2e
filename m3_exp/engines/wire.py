"""What crosses between an engine's process and ours: one JSON object a line.

to the child     {"do": "start" | "load" | "generate" | "loglikelihood" | "close", ...}
from the child   {"ready"}, {"loaded"}, {"answer"}, {"likelihood"}, {"progress"}, {"refused"}, {"done"}
"""

import json
from collections.abc import Mapping

from m3_exp.types import Prompt, plain

Pair = tuple[Prompt, tuple[int, ...]]  # a prompt and a continuation of it


def line(message: Mapping[str, object]) -> bytes:
    """Write one message; text is escaped to ASCII, so that any string survives (lone surrogates too)."""
    return json.dumps(plain(message), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
