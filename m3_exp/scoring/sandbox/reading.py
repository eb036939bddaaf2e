"""Which reading of an answer is the program: the first that compiles and best defines what the tests ask for.

It is decided in the candidate's box, under its limits, from the text alone: nothing of the answer has run.
"""

import ast
import builtins
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

COMPLETE, PARTIAL, LACKING = 0, 1, 2  # grades of a reading; LACKING and more: so many names less one are not defined
_LONGEST = 200_000  # characters of a program that is looked into
_DYNAMIC = {"exec", "globals", "locals", "vars", "setattr"}  # what may bind names that no statement shows
_MODULE = {"__name__", "__file__", "__doc__", "__builtins__", "__annotations__", "__dict__", "__spec__"}


def choose(
    programs: Sequence[Sequence[str]], names: Sequence[str], describe: Callable[[BaseException], str]
) -> tuple[types.CodeType | None, dict[str, object]]:
    """Return the code of the best reading, and what to report: its name, and those that are no Python.

    Best is the first COMPLETE one, else the first PARTIAL one, else the first that lacks the fewest names. Where none
    is Python, the report has the first one's error.
    """
    best: tuple[int, str, types.CodeType] | None = None
    first, invalid = "", []
    for reading, source in programs:
        try:
            code = compile(source, "<answer>", "exec", dont_inherit=True)
        except Exception as error:
            first = first or describe(error)
            invalid.append(reading)
            continue
        grade = COMPLETE if len(programs) == 1 else graded(source, names)
        if best is None or grade < best[0]:
            best = grade, reading, code
        if grade == COMPLETE:
            break
    if best is None:
        return None, {"invalid": first}
    return best[2], {"reading": best[1], "not_python": sorted(set(invalid))}


def graded(source: str, names: Sequence[str]) -> int:
    """Say how well a program that compiles defines these names at its top level.

    COMPLETE: all of them, every function returns a value, and no name is used that nothing binds. PARTIAL: all of them,
    as far as the text shows. LACKING or more: one or more of them are missing; the number grows with those missing.
    """
    if len(source) > _LONGEST:
        return PARTIAL
    try:
        tree = ast.parse(source)
        bindings = _bindings(tree)
        missing = [name for name in names if name not in bindings.sure]
        if missing and not bindings.dynamic:
            lost = [name for name in missing if name not in bindings.maybe]
            return LACKING + len(lost) - 1 if lost else PARTIAL
        whole = not missing and all(_gives_value(bindings.functions[n]) for n in names if n in bindings.functions)
        return COMPLETE if whole and (bindings.dynamic or not _unbound(tree)) else PARTIAL
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return PARTIAL


@dataclass
class _Bindings:
    """A module's names: surely bound, or bound when a function runs; `dynamic` where any others may be bound too."""

    sure: set[str] = field(default_factory=set)
    maybe: set[str] = field(default_factory=set)
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    dynamic: bool = False


def _bindings(tree: ast.Module) -> _Bindings:
    """Find what a module binds, whatever the statement; a function without a body and a foreign import do not count."""
    bindings = _Bindings()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            bindings.maybe.update(node.names)
        elif isinstance(node, ast.ImportFrom):
            bindings.dynamic |= node.names[0].name == "*"
        elif isinstance(node, ast.Name):
            bindings.dynamic |= node.id in _DYNAMIC
    for node in _of_module(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not _is_stub(node):
                bindings.sure.add(node.name)
                bindings.functions[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bindings.sure.update(_imported(node))
        else:
            bindings.sure.update(_bound_by(node))
    return bindings


def _of_module(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk through the nodes whose names are the module's own: not into functions, classes and comprehensions."""
    pending: list[ast.AST] = [*reversed(tree.body)]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            pending += [inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        elif isinstance(node, ast.AnnAssign):
            pending += [] if node.value is None else [node.target, node.value]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending += reversed(list(ast.iter_child_nodes(node)))


def _bound_by(node: ast.AST) -> set[str]:
    """Return the names that a node binds by itself, other than functions and imports."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.ClassDef | ast.MatchAs | ast.MatchStar):
        return {node.name} if node.name else set()
    return {node.rest} if isinstance(node, ast.MatchMapping) and node.rest else set()


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the names that an import from the standard library binds: there is no other in a box."""
    if isinstance(node, ast.ImportFrom):
        own = node.level == 0 and _is_standard(str(node.module))
        return {alias.asname or alias.name for alias in node.names} if own else set()
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names if _is_standard(alias.name)}


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether a function has no body yet: a docstring, `pass`, `...`, or NotImplementedError."""
    return all(_does_nothing(statement) for statement in function.body)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass)


def _gives_value(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether a function may return or yield a value; one with a decorator may."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom) or (isinstance(node, ast.Return) and node.value is not None):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return bool(function.decorator_list)


def _unbound(tree: ast.Module) -> set[str]:
    """Return the names that a program uses and nothing in it binds, in whatever scope, nor Python."""
    used: set[str] = set()
    bound = _MODULE | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.ExceptHandler):
            bound.add(str(node.name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        else:
            bound.update(_bound_by(node))
    return used - bound
