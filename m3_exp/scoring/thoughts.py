"""Thoughts of reasoning models: what a model writes before its answer, between marks that its kind of model knows.

A thought stands at the start of a text, after blank space. Its opening mark may be missing, since chat templates
supply it: then a closing mark that nothing opened ends it. Later in a text it stands on lines of its own, outside of
code: its opening mark does, or all of it. Whatever else looks like a mark is the answer's: a program that prints one, a
sentence about them.
"""

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

UNCLOSED = "unclosed thought"  # the `finish` of an answer that is none
_NAMES = "think|thinking|thoughts?|reasoning|seed:think"
_SPACES = " \t\r"
_QUOTES = "\"'`"
_BLANK = re.compile(r"\s*")
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
_FENCE = re.compile(r"^[^\S\n]*(?:```|~~~)", re.MULTILINE)
# What a tokenizer that shows its special tokens leaves before a turn.
_TURN = re.compile(r"\A[\s\ufeff\u200b]*(?:<s>|<\|im_start\|>assistant|<\|start\|>assistant|<\|assistant\|>)?\s*")


@dataclass(frozen=True)
class _Marks:
    """The opening and the closing mark of one kind of thought, as patterns."""

    opening: str
    closing: str

    @cached_property
    def either(self) -> re.Pattern[str]:
        return re.compile(f"(?P<opening>{self.opening})|(?P<closing>{self.closing})")


_KINDS = (
    _Marks(rf"(?i:<\s*(?:{_NAMES})(?:\s[^<>]{{0,200}})?>)", rf"(?i:<\s*/\s*(?:{_NAMES})\s*>)"),
    _Marks(r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    _Marks(r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    _Marks(r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    _Marks(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    _Marks("◁think▷", "◁/think▷"),  # Kimi
    _Marks(r"<\|channel>thought", r"<channel\|>"),  # Gemma
)
# What may stand around an answer after a thought, and is not a part of it.
_ANSWERS = re.compile(
    r"\s*(?:<\|begin_of_solution\|>(?P<a>.*?)(?:<\|end_of_solution\|>|\Z)"
    r"|<\|START_RESPONSE\|>(?P<b>.*?)(?:<\|END_RESPONSE\|>|\Z)"
    r"|<answer>(?P<c>.*?)</answer>\s*\Z"
    r"|<output>(?P<d>.*?)</output>\s*\Z)",
    re.DOTALL | re.IGNORECASE,
)
# gpt-oss: channels of one turn; without special tokens their names run into the text.
_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>")
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_ANALYSIS = re.compile(r"analysis(?=[A-Z])")
_BARE_FINAL = "assistantfinal"


def drop(text: str) -> str | None:
    """Return an answer without its thoughts and the blank lines after them, None where a thought does not end.

    A text without thoughts comes back as it is.
    """
    begun = _TURN.sub("", text, count=1)
    if _CHANNEL.match(begun) or _FINAL.search(begun) or _BARE_ANALYSIS.match(begun):
        return _final(begun)
    for kind in _KINDS:
        rest = _without(begun, kind) if kind.either.search(begun) else begun
        if rest != begun:
            return None if rest is None else _answer(rest)
    return text


def held(text: str) -> bool:
    """Tell whether a text holds a thought that `drop` would take away, or that does not end."""
    return drop(text) != text


def drop_as_livebench(text: str) -> str:
    """Remove every <think>...</think>, wherever it stands, as LiveBench's judge does (since 2025-01-22).

    What re.sub("<think>.*?</think>", "", text, flags=re.DOTALL) makes, in linear time.
    """
    at = 0
    kept: list[str] = []
    while (opened := text.find("<think>", at)) >= 0 and (closed := text.find("</think>", opened)) >= 0:
        kept.append(text[at:opened])
        at = closed + len("</think>")
    return "".join([*kept, text[at:]])


def _final(text: str) -> str | None:
    """Return the final channel of a gpt-oss answer, None where there is none."""
    if not _BARE_ANALYSIS.match(text):
        finals = list(_FINAL.finditer(text))
        return _CHANNEL_ENDS.split(text[finals[-1].end() :])[0] if finals else None
    _, channels, rest = text.rpartition(_BARE_FINAL)
    return rest if channels else None


def _without(text: str, kind: _Marks) -> str | None:
    """Return a text without the thoughts of one kind, None where one does not end."""
    fences = [fence.start() for fence in _FENCE.finditer(text)]
    at, found = 0, False
    while True:
        opening = _opening(text, kind, at)
        end = _end(text, kind, opening.end()) if opening else _lone_end(text, kind, at, fences, alone=found)
        if opening and end is None:
            return None
        if end is None:
            return _without_later(text, kind, at, fences)
        at, found = end, True


def _opening(text: str, kind: _Marks, at: int) -> re.Match[str] | None:
    """Return the opening mark that stands at a place, after blank space."""
    mark = kind.either.match(text, _BLANK.match(text, at).end())  # type: ignore[union-attr]
    return mark if mark and mark["opening"] else None


def _end(text: str, kind: _Marks, start: int) -> int | None:
    """Return where a thought that began before `start` ends: where as many marks close as open.

    Where that is nowhere, since one was only mentioned, it is the last mark that closes.
    """
    depth, last = 1, None
    for mark in _marks(text, kind, start):
        depth += 1 if mark["opening"] else -1
        last = last if mark["opening"] else mark.end()
        if depth == 0:
            break
    return last


def _lone_end(text: str, kind: _Marks, start: int, fences: Sequence[int], *, alone: bool) -> int | None:
    """Return the end of the first mark that closes what nothing opened; `alone`: of those on lines of their own."""
    depth = 0
    for mark in _marks(text, kind, start):
        if not _alone(text, mark) and (alone or _in_code(mark, fences)):
            continue
        depth += 1 if mark["opening"] else -1
        if depth < 0:
            return mark.end()
    return None


def _without_later(text: str, kind: _Marks, start: int, fences: Sequence[int]) -> str:
    """Return a text from `start` on without thoughts on lines of their own, outside of code, that end."""
    at = start
    kept: list[str] = []
    while True:
        openings = (mark for mark in _marks(text, kind, at) if mark["opening"] and not _in_code(mark, fences))
        opening = next((m for m in openings if _alone(text, m) or _is_line(text, m, kind)), None)
        end = _end(text, kind, opening.end()) if opening else None
        if opening is None or end is None:
            return "".join([*kept, text[at:]])
        kept.append(text[at : opening.start()])
        at = end


def _marks(text: str, kind: _Marks, start: int) -> Iterator[re.Match[str]]:
    """Yield the marks from `start` on that are not just mentioned in quotes."""
    for mark in kind.either.finditer(text, start):
        before, behind = text[max(0, mark.start() - 1) : mark.start()], text[mark.end() : mark.end() + 1]
        if not (before and before in _QUOTES and behind in (before, "\\")):
            yield mark


def _alone(text: str, mark: re.Match[str]) -> bool:
    """Tell whether nothing else stands on the line of a mark."""
    behind = mark.end()
    while behind < len(text) and text[behind] in _SPACES:
        behind += 1
    return _begins_line(text, mark) and text[behind : behind + 1] in ("", "\n")


def _begins_line(text: str, mark: re.Match[str]) -> bool:
    before = mark.start()
    while before and text[before - 1] in _SPACES:
        before -= 1
    return text[before - 1 : before] in ("", "\n")


def _is_line(text: str, opening: re.Match[str], kind: _Marks) -> bool:
    """Tell whether an opening mark begins a line that a closing one ends."""
    if not _begins_line(text, opening):
        return False
    end = text.find("\n", opening.end())
    rest = text[opening.end() : len(text) if end < 0 else end]
    return re.search(rf"{kind.closing}[{_SPACES}]*\Z", rest) is not None


def _in_code(mark: re.Match[str], fences: Sequence[int]) -> bool:
    """Tell whether a mark stands between fences, which are given by their places."""
    return bisect.bisect_left(fences, mark.start()) % 2 == 1


def _answer(rest: str) -> str:
    """Return what follows a thought, without blank lines before it and marks around it."""
    framed = _ANSWERS.match(rest)
    inside = rest if framed is None else next(part for part in framed.groups() if part is not None)
    return _BLANK_LINES.sub("", inside)
