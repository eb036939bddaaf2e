"""Small Python functions, two or three operations on a list, a text or a number in a row, in HumanEval's schema.

The parts of an example are its neighbouring operations, in order: training has seen "sort, then take the first three"
or "square, then sum", a test item asks for pairs that no training function holds. The operations themselves are known
to both sides.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from m3_exp.lab.split import Example, Side, side

_NAMES = ("solve", "compute", "convert", "process", "transform", "evaluate")
_WORDS = ("red", "Blue", "green", "sky", "Tree", "house", "river", "Stone", "eel", "apple", "Moon", "ox", "idea", "cat")
_SHORT_SHARE = 0.35  # functions of two operations; the others have three


@dataclass(frozen=True)
class Operation:
    """One step: the kinds it takes and gives (which are also its variables), its wording and its code.

    `{k}` stands for a small number; `numbers` are ints in xs, `words` strings in ws, `text` is s, `number` is n.
    """

    takes: str
    gives: str
    wording: str
    code: str


_OPERATIONS = (
    Operation("xs", "xs", "keep the even numbers", "[x for x in xs if x % 2 == 0]"),
    Operation("xs", "xs", "keep the odd numbers", "[x for x in xs if x % 2 == 1]"),
    Operation("xs", "xs", "keep the positive numbers", "[x for x in xs if x > 0]"),
    Operation("xs", "xs", "keep the numbers above {k}", "[x for x in xs if x > {k}]"),
    Operation("xs", "xs", "keep the numbers below {k}", "[x for x in xs if x < {k}]"),
    Operation("xs", "xs", "keep the multiples of {k}", "[x for x in xs if x % {k} == 0]"),
    Operation("xs", "xs", "double every number", "[x * 2 for x in xs]"),
    Operation("xs", "xs", "square every number", "[x ** 2 for x in xs]"),
    Operation("xs", "xs", "add {k} to every number", "[x + {k} for x in xs]"),
    Operation("xs", "xs", "subtract {k} from every number", "[x - {k} for x in xs]"),
    Operation("xs", "xs", "flip the sign of every number", "[-x for x in xs]"),
    Operation("xs", "xs", "take the absolute values", "[abs(x) for x in xs]"),
    Operation("xs", "xs", "sort in ascending order", "sorted(xs)"),
    Operation("xs", "xs", "sort in descending order", "sorted(xs, reverse=True)"),
    Operation("xs", "xs", "reverse the list", "xs[::-1]"),
    Operation("xs", "xs", "take the first {k} numbers", "xs[:{k}]"),
    Operation("xs", "xs", "take the last {k} numbers", "xs[-{k}:]"),
    Operation("xs", "xs", "leave out the first {k} numbers", "xs[{k}:]"),
    Operation("xs", "xs", "take every second number", "xs[::2]"),
    Operation("xs", "n", "add the numbers up", "sum(xs)"),
    Operation("xs", "n", "take the largest number", "max(xs)"),
    Operation("xs", "n", "take the smallest number", "min(xs)"),
    Operation("xs", "n", "count the numbers", "len(xs)"),
    Operation("xs", "n", "subtract the smallest number from the largest", "max(xs) - min(xs)"),
    Operation("xs", "s", "join the numbers with dashes", "'-'.join(str(x) for x in xs)"),
    Operation("n", "n", "double it", "n * 2"),
    Operation("n", "n", "square it", "n ** 2"),
    Operation("n", "n", "add {k}", "n + {k}"),
    Operation("n", "n", "subtract {k}", "n - {k}"),
    Operation("n", "n", "take the remainder by {k}", "n % {k}"),
    Operation("n", "n", "take the absolute value", "abs(n)"),
    Operation("n", "n", "add up its digits", "sum(int(d) for d in str(abs(n)))"),
    Operation("n", "s", "write it as text", "str(n)"),
    Operation("n", "xs", "list the numbers from 1 up to it", "list(range(1, n + 1))"),
    Operation("s", "s", "change the text to upper case", "s.upper()"),
    Operation("s", "s", "change the text to lower case", "s.lower()"),
    Operation("s", "s", "reverse the text", "s[::-1]"),
    Operation("s", "s", "remove the spaces", "s.replace(' ', '')"),
    Operation("s", "s", "remove the vowels", "''.join(c for c in s if c not in 'aeiou')"),
    Operation("s", "s", "take the first {k} letters", "s[:{k}]"),
    Operation("s", "s", "take the last {k} letters", "s[-{k}:]"),
    Operation("s", "s", "repeat the text {k} times", "s * {k}"),
    Operation("s", "s", "sort the letters", "''.join(sorted(s))"),
    Operation("s", "s", "add an exclamation mark", "s + '!'"),
    Operation("s", "ws", "split the text into words", "s.split()"),
    Operation("s", "n", "count the letters", "len(s)"),
    Operation("s", "n", "count the vowels", "sum(c in 'aeiou' for c in s)"),
    Operation("s", "n", "count the letter e", "s.count('e')"),
    Operation("ws", "ws", "sort the words", "sorted(ws)"),
    Operation("ws", "ws", "sort the words by length", "sorted(ws, key=len)"),
    Operation("ws", "ws", "reverse the order of the words", "ws[::-1]"),
    Operation("ws", "ws", "reverse every word", "[w[::-1] for w in ws]"),
    Operation("ws", "ws", "change every word to upper case", "[w.upper() for w in ws]"),
    Operation("ws", "ws", "keep the words longer than {k}", "[w for w in ws if len(w) > {k}]"),
    Operation("ws", "ws", "take the first {k} words", "ws[:{k}]"),
    Operation("ws", "xs", "take the length of every word", "[len(w) for w in ws]"),
    Operation("ws", "n", "count the words", "len(ws)"),
    Operation("ws", "s", "join the words with spaces", "' '.join(ws)"),
    Operation("ws", "s", "join the words with commas", "','.join(ws)"),
    Operation("ws", "s", "join the first letters of the words", "''.join(w[0] for w in ws)"),
    Operation("ws", "s", "take the longest word", "max(ws, key=len)"),
)


@dataclass(frozen=True)
class Function:
    """One drawn function: what it takes and gives (a variable's name each), how it is told, its code and its cases.

    `steps` are the statements before the last value, `result` the expression of that value, `cases` inputs and results.
    """

    takes: str
    gives: str
    wording: str
    steps: tuple[str, ...]
    result: str
    cases: tuple[tuple[Any, Any], ...]
    parts: tuple[str, ...]
    name: str

    def body(self, indent: str) -> str:
        return "".join(f"{indent}{line}\n" for line in [*self.steps, f"return {self.result}"])


@dataclass(frozen=True)
class Sizes:
    """How many cases a function gets, and how long their inputs are: numbers of a list, words of a text."""

    cases: int = 6
    numbers: tuple[int, int] = (6, 9)
    words: tuple[int, int] = (4, 6)


def draw(rng: random.Random, wanted: Side) -> Example | None:
    """Draw one function in HumanEval's schema, or None where no operation of the right side goes on."""
    function = draw_function(rng, wanted, Sizes())
    if function is None:
        return None
    head = f"def {function.name}({function.takes}):\n"
    prompt = f'{head}    """{sentence(function.wording)}"""\n'
    checks = "".join(f"    assert candidate({given!r}) == {result!r}\n" for given, result in function.cases)
    test = f"def check(candidate):\n{checks}"
    body = function.body("    ")
    row = {"prompt": prompt, "entry_point": function.name, "canonical_solution": body, "test": test}
    return Example(row, "\n" + head + function.body("\t").rstrip("\n"), function.parts, function.wording)


def draw_function(rng: random.Random, wanted: Side, sizes: Sizes, short_share: float = _SHORT_SHARE) -> Function | None:
    """Draw one function, or None where no operation of the right side goes on or a step does nothing."""
    chain = _chain(rng, 2 if rng.random() < short_share else 3, wanted)
    if chain is None:
        return None
    k = str(rng.randint(2, 5))
    codes = [step.code.replace("{k}", k) for step in chain]
    cases = _cases(rng, chain, codes, sizes)
    if cases is None:
        return None
    return Function(
        takes=chain[0].takes,
        gives=chain[-1].gives,
        wording=", then ".join(step.wording.replace("{k}", k) for step in chain),
        steps=tuple(f"{step.gives} = {code}" for step, code in zip(chain[:-1], codes[:-1], strict=True)),
        result=codes[-1],
        cases=cases,
        parts=tuple(_part(a, b) for a, b in pairwise(chain)),
        name=rng.choice(_NAMES),
    )


def sentence(wording: str) -> str:
    return f"{wording[0].upper()}{wording[1:]}."


def _chain(rng: random.Random, length: int, wanted: Side) -> list[Operation] | None:
    """Draw different operations, each taking what the one before gives; every pair of neighbours is of one side."""
    chain = [rng.choice([step for step in _OPERATIONS if step.takes != "n"])]
    while len(chain) < length:
        last = chain[-1]
        fitting = [step for step in _OPERATIONS if step.takes == last.gives and step not in chain]
        choices = [step for step in fitting if side(_part(last, step)) == wanted]
        if not choices:
            return None
        chain.append(rng.choice(choices))
    return chain


def _part(first: Operation, second: Operation) -> str:
    return f"operations {first.wording} > {second.wording}"


def _cases(
    rng: random.Random, chain: Sequence[Operation], codes: Sequence[str], sizes: Sizes
) -> tuple[tuple[Any, Any], ...] | None:
    """Return inputs and results, or None where the function fails, hardly varies, or a step never matters."""
    inputs = [_input(rng, chain[0].takes, sizes) for _ in range(sizes.cases)]
    traces = [_trace(chain, codes, given) for given in inputs]
    if any(trace is None for trace in traces):
        return None
    full = [trace for trace in traces if trace is not None]
    idle = any(all(trace[i] == trace[i + 1] for trace in full) for i in range(len(chain)))
    echo = all(trace[0] == trace[-1] for trace in full)
    if idle or echo or len({repr(trace[-1]) for trace in full}) < 3 or any(len(repr(trace[-1])) > 80 for trace in full):
        return None
    return tuple((trace[0], trace[-1]) for trace in full)


def _trace(chain: Sequence[Operation], codes: Sequence[str], given: Any) -> list[Any] | None:
    """Return the value before and after every step, or None where one fails (the largest of an empty list)."""
    values = [given]
    for step, code in zip(chain, codes, strict=True):
        try:
            values.append(eval(code, {}, {step.takes: values[-1]}))  # our own code, from the table above
        except (ValueError, IndexError):
            return None
    return values


def _input(rng: random.Random, kind: str, sizes: Sizes) -> Any:
    words = rng.sample(_WORDS, rng.randint(*sizes.words))
    if kind == "xs":
        return [rng.randint(-9, 20) for _ in range(rng.randint(*sizes.numbers))]
    return words if kind == "ws" else " ".join(words)
