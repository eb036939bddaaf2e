"""Items with a test script of their own: MultiPL-E's Python sets and whatever has the same form.

A row holds `test` (or `tests`), Python that raises where the program is wrong, and usually `prompt`, the code before
the answer; `task_id` (or `name`) is its id. `entry_point` may be left out: the function is the name that the script
uses and nobody else defines. A script that only defines `check(candidate)`, as HumanEval's, is called with it.
"""

import ast
import keyword

from m3_exp.scoring.items import ItemSet, Row
from m3_exp.scoring.programs import Program, names_in_tests, preamble, readings, script_readings
from m3_exp.scoring.sandbox.judge import Task
from m3_exp.types import M3Error, Problem


def is_script(row: Row) -> bool:
    """Say whether a row carries a script as its tests."""
    return isinstance(row.get("test", row.get("tests")), str)


def convert(row: Row) -> Row:
    """Return a row with the columns `task_id`, `prompt` and `test`, whatever they were called."""
    renamed = dict(row)
    renamed["test"] = row.get("test", row.get("tests"))
    renamed["prompt"] = row.get("prompt", "")
    renamed["task_id"] = row.get("task_id", row.get("name"))
    return renamed


def item_set(benchmark: str, row: Row) -> ItemSet:
    """Return what a file of such items must look like; `row` is its first."""
    id_column = None if convert(row)["task_id"] is None else "task_id"
    columns = {"prompt": str, "test": str, **({id_column: object} if id_column else {})}
    optional = {"entry_point": str, "canonical_solution": str, "code": str}
    return ItemSet(benchmark, columns, id_column=id_column, convert=convert, optional=optional)


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
    start = prompt if any(is_python(prompt + end) for end in ("", "    pass\n", "\n    pass\n")) else ""
    try:
        names = names_in_tests(test, start)
        functions = {node.name for node in ast.parse(test).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # what Python's parser raises
        raise M3Error(f"item {problem.id}: its test script is not Python: {error}; correct the item") from None
    given = function_name(problem) if problem.row.get("entry_point") else None
    asked = tuple(dict.fromkeys([*([given] if given else []), *names.asked]))
    if not asked:
        raise M3Error(f"item {problem.id}: its test script calls no function of the program; name it in entry_point")
    if given and given not in names.asked and "check" in functions:
        test += f"\ncheck({given})\n"
    prelude = preamble(start, asked[0]) + names.imports
    if cleaned is None:
        whole = text.startswith(start.rstrip())
        programs: tuple[Program, ...] = (Program("program", text) if whole else Program("completion", start + text),)
    elif start.strip():
        programs = readings(start, asked[0], cleaned, text, last=last)
    else:
        programs = script_readings(asked[0], cleaned, text, last=last)
    return Task(programs, asked[0], prelude, test, asked[1:])


def is_python(source: str) -> bool:
    """Say whether a text is code."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
