"""Items with a test script of their own: MultiPL-E's Python sets and whatever has the same form.

A row holds `test` (or `tests`), Python that raises where the program is wrong, and usually `prompt`, the code before
the answer; `task_id` (or `name`) is its id. `entry_point` may be left out: the function is the name that the script
uses and nobody else defines. A script that only defines `check(candidate)`, as HumanEval's, is called with it.
"""

import ast
import keyword
from typing import Any

from m3_exp.scoring.items import ItemSet, Row
from m3_exp.scoring.programs import Program, names_in_tests, preamble, readings, script_readings
from m3_exp.scoring.sandbox.judge import Task
from m3_exp.types import M3Error, Problem


def is_script(row: Row) -> bool:
    """Say whether a row carries a script as its tests."""
    return isinstance(row.get("test", row.get("tests")), str)


def convert(row: Row) -> Row:
    """Return a row with the columns `task_id`, `prompt` and `test`, whatever they were called."""
    found = dict(row)
    found["test"] = row.get("test", row.get("tests"))
    found["prompt"] = row.get("prompt", "")
    found["task_id"] = row.get("task_id", row.get("name"))
    return found


def item_set(benchmark: str, row: Row) -> ItemSet:
    """Return what a file of such items must look like; `row` is its first."""
    named = convert(row)["task_id"] is not None
    columns = {"prompt": str, "test": str, **({"task_id": object} if named else {})}
    optional = {"entry_point": str, "canonical_solution": str, "code": str}
    id_column = "task_id" if named else None
    return ItemSet(benchmark, columns, "", 0, "", "", id_column, convert=convert, optional=optional)


def function_name(problem: Problem) -> str:
    """Return the `entry_point` of an item.

    Raises:
        M3Error: it is not the name of a function.
    """
    name = str(problem.row["entry_point"])
    if not name.isidentifier() or keyword.iskeyword(name):
        raise M3Error(f"item {problem.id}: entry_point is {name[:80]!r}, not the name of a function: correct the item")
    return name


def script_task(problem: Problem, text: str, cleaned: str | None, *, last: bool = False) -> Task:
    """Return what the sandbox needs to judge one answer; `cleaned` is the text after post-processing, if there is any.

    Without it the text is the program where it begins with the prompt, else what completes the prompt. `last` is that
    of `readings`.

    Raises:
        M3Error: the script is not Python, or calls nothing of the program.
    """
    prompt, test = str(problem.row["prompt"]), str(problem.row["test"])
    code = _is_python(prompt)
    try:
        names = names_in_tests(test, prompt if code else "")
        functions = _functions(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # what Python's parser raises
        raise M3Error(f"item {problem.id}: its test script is not Python: {error}; correct the item") from None
    given = function_name(problem) if problem.row.get("entry_point") else None
    asked = tuple(dict.fromkeys([*([given] if given else []), *names.asked]))
    if not asked:
        raise M3Error(f"item {problem.id}: its test script calls no function of the program; name it in entry_point")
    if given and given not in names.asked and "check" in functions:
        test += f"\ncheck({given})\n"
    prelude = (preamble(prompt, asked[0]) if code else "") + names.imports
    start = prompt if code else ""
    if cleaned is None:
        programs = _as_it_is(start, text)
    elif start.strip():
        programs = readings(start, asked[0], cleaned, text, last=last)
    else:
        programs = script_readings(asked[0], cleaned, text, last=last)
    return Task(programs, asked[0], prelude, test, asked[1:])


def _as_it_is(prompt: str, text: str) -> tuple[Program, ...]:
    if text.startswith(prompt.rstrip()):
        return (Program("program", text),)
    return (Program("completion", prompt + text),)


def _is_python(source: str) -> bool:
    """Say whether a prompt is code: complete, or open where the answer goes on."""
    for end in ("", "    pass\n", "\n    pass\n"):
        try:
            ast.parse(source + end)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return True
    return False


def _functions(source: str) -> set[Any]:
    return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
