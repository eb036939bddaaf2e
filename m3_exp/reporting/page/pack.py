"""Data inside the page: JSON or text, compressed, in base64, as `<script type="text/plain">` that no browser runs.

Base64 has no `<`, so nothing that a model wrote can end the element; the page inflates it by DecompressionStream.
"""

import base64
import json
import zlib
from typing import Any


def pack(value: Any) -> str:
    """Return a value's compact JSON, compressed, in base64; the same value gives the same text."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return pack_text(text)


def pack_text(text: str) -> str:
    """Return a text compressed, in base64. A lone surrogate becomes a question mark."""
    return base64.b64encode(zlib.compress(text.encode(errors="replace"), 9)).decode()


def element(name: str, packed: str) -> str:
    """Return the element that page.js finds by `data-pack`."""
    return f'<script type="text/plain" data-pack="{name}">{packed}</script>'


def rounded(value: Any, digits: int = 2) -> Any:
    """Round all numbers in nested lists; NaN becomes None."""
    if isinstance(value, list):
        return [rounded(inner, digits) for inner in value]
    return None if value != value else round(value, digits)
