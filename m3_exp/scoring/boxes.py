"""The box of an answer: the last complete \\boxed{...} that holds something, in whatever way it was written.

An empty box, one that is cut off, and a \\boxed that is only mentioned take nothing from a box before them.
"""

import re
from dataclasses import dataclass

_COMMAND = re.compile(r"\\(boxed|fbox)(?![A-Za-z])(?P<blank>[\s~]*)")  # after the blanks its brace opens, if any
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is text
_EMPTY = re.compile(
    r"(?:[\s~{}$.…_?]|\\[,;:!() _]|\\(?:q?quad|[lc]?dots|square|Box)(?![A-Za-z])|\\(?:text|mathrm|underline)(?=\s*\{))*"
)
# Without braces: the rest of the line, up to the end of the formula.
_END = re.compile(r"\$|\\\)|\\\]|\n")
_REACH = 200  # characters before and after a command that are looked at
_TERM = re.compile(r"[-+−]?(?:\\?\$)?(?:\d|\.\d|\\(?!boxed|fbox)[A-Za-z])")  # a number or a command begins it
_NUMBER = re.compile(r"[-+−]?(?:\\?\$)?\.?\d(?:[\d,]*\d)?(?:\.\d+)?(?:/\d+)?(?:\\?%)?(?![\w\\])")
_FRACTION = re.compile(r"-?(?:\d+\s*)?\\[dtc]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}")
_NO_WORD = re.compile(r"\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2}")


@dataclass(frozen=True)
class _Box:
    """A complete box: its command and its content. `doubtful`: it may just be a mention of \\boxed before a number."""

    command: str
    content: str
    doubtful: bool = False


def last_boxed(text: str) -> str | None:
    """Return the content of the last complete \\boxed that is not empty (else \\fbox), or None.

    With braces the content is what is between them, as it stands; a box in a box is opened (`\\boxed{-\\boxed{5}}` is
    -5). Without (`\\boxed 5`) it is the rest of the formula, else the number or fraction that follows.
    """
    boxes = [box for box in _boxes(text) if not _EMPTY.fullmatch(box.content)]
    for command in ("boxed", "fbox"):
        own = [box for box in boxes if box.command == command]
        if own:
            return ([box for box in own if not box.doubtful] or own)[-1].content
    return None


def _boxes(text: str) -> list[_Box]:
    """Return the complete boxes of a text in order; one that lies in another is part of it."""
    commands = list(_COMMAND.finditer(text))
    closing = _pairs(text) if commands else {}
    boxes: list[_Box] = []
    end = 0
    for command in commands:
        if command.start() < end:
            continue
        opening = command.end()
        if opening in closing:
            end = closing[opening]
            boxes.append(_Box(command[1], _opened(text[opening + 1 : end])))
        elif text[opening : opening + 1] != "{" and (bare := _bare(text, command)) is not None:
            boxes.append(bare)
    return boxes


def _pairs(text: str) -> dict[int, int]:
    """Return the place of the closing brace for that of each opening one."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            pairs[opened.pop()] = brace.start()
    return pairs


def _opened(content: str) -> str:
    """Return the content of a box without the commands and braces of boxes in it."""
    commands = list(_COMMAND.finditer(content))
    closing = _pairs(content) if commands else {}
    braced = [command.span() for command in commands if command.end() in closing]
    cuts = sorted(
        [(start, opening + 1) for start, opening in braced] + [(closing[o], closing[o] + 1) for _, o in braced]
    )
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(content)]
    return "".join(content[start:end] for start, end in zip(starts, ends, strict=True))


def _bare(text: str, command: re.Match[str]) -> _Box | None:
    """Return the box of a command without braces, or None where the command is only mentioned."""
    rest = text[command.start("blank") : command.start("blank") + _REACH]
    end = _END.search(rest)
    content = rest[: end.start() if end else None].strip(" \t~")
    before = text[max(0, command.start() - _REACH) : command.start()].rpartition("\n")[2]
    within = before.count("$") % 2 == 1 or "\\(" in before or "\\[" in before
    closed = end is not None and end[0] != "\n" and not _WORD.search(_NO_WORD.sub("", content))
    if closed and content and (within or _TERM.match(content)):
        return _Box(command[1], content)
    match = _FRACTION.match(content) or _NUMBER.match(content)
    if match is None:
        return None
    return _Box(command[1], match[0], doubtful=re.match(r"\s*\w", content[match.end() :]) is not None)
