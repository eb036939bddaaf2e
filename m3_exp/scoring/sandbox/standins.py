"""What stands in one process for an object that stays in the other.

    of a function, a generator, `map` or `filter`   one of the same type, which asks there and takes the next from there
    of a class of exceptions                        a class of that name, derived from the same built-in ones
    of a class                                      called, read and set over there; `isinstance` asks for the real type
    of any other object                             an `Instance`

No value of the tests is ever given to an operator that the program defined. Of an `Instance` the tests may read and set
attributes, call methods (those of QUESTIONS only where they call its class by name), enter it, iterate it, pass it
back, and ask whether it is the same object. All that comes back is plain, and compared where the program never ran.
What one of its own operators would have to answer (`==`, `<`, `in`, arithmetic, `hash`, `abs`, `len`, `bool`, `str`, an
index) fails the test, because it is no plain value. Only two kinds of objects are asked for their length, truth, text
and items as well: those of a class that the tests call by its name (with a capital letter, as classes have), and those
of Python's own types.
"""

import builtins
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from .kinds import About, CodecError, Value
from .questions import QUESTIONS

Ask = Callable[..., Any]  # ask(operation, target, *arguments)
Refuse = Callable[[str], BaseException]  # what to raise where a value would judge itself; the type's name goes in


class StandIn:
    """What stands for an object of the program; `known` where the tests call it, or its class, by name."""

    def __init__(self, about: About, ask: Ask, refuse: Refuse, known: bool) -> None:
        own = {"_about": about, "_asks": ask, "_refuses": refuse, "_known": known}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Value:
        if name.startswith("__"):  # Python's own protocols are written out here
            raise AttributeError(name)
        value = _ask(self, "get", name)
        if name in QUESTIONS and callable(value) and not _own(self, "_known"):
            raise _refused(self)
        return value

    def __setattr__(self, name: str, value: Value) -> None:
        _ask(self, "set", name, value)


class Function(StandIn):
    """A function or another callable of the program."""

    def __init__(self, about: About, ask: Ask, refuse: Refuse, known: bool) -> None:
        super().__init__(about, ask, refuse, known)
        object.__setattr__(self, "__name__", about.name)

    def __repr__(self) -> str:
        return f"<function {object.__getattribute__(self, '__name__')}>"

    def __call__(self, *positional: Value, **keywords: Value) -> Value:
        return _ask(self, "call", positional, keywords)

    def __deepcopy__(self, _: Value) -> Value:
        return self


class Class(Function):
    """A class of the program."""

    def __repr__(self) -> str:
        return f"<class {object.__getattribute__(self, '__name__')}>"

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Instance) and _ask(self, "is_instance", value) is True


class Instance(StandIn):
    """An object of some class of the program."""

    def __repr__(self) -> str:
        return f"<{_own(self, '_about').name}>"

    def __bool__(self) -> bool:
        if "true" in _own(self, "_about").traits:
            return True
        raise _refused(self)

    def __contains__(self, value: Value) -> bool:
        if "iterate" not in _own(self, "_about").traits:
            raise _refused(self)
        return any(item is value or item == value for item in _ask(self, "iterate"))

    def __eq__(self, other: object) -> bool:
        if self is other or other is None:
            return self is other
        raise _refused(self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __enter__(self) -> Value:
        return _ask(self, "enter")

    def __exit__(self, *_: object) -> None:
        _ask(self, "exit")

    def __copy__(self) -> Value:
        return _ask(self, "copy")

    def __deepcopy__(self, _: Value) -> Value:
        return _ask(self, "deep_copy")


class Open(Instance):
    """An object whose class the tests call by its name: it may be asked for its length, truth, text and items."""

    def __repr__(self) -> str:
        return str(_ask(self, "repr"))

    def __str__(self) -> str:
        return str(_ask(self, "str"))

    def __format__(self, specification: str) -> str:
        return format(str(self), specification)

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __bool__(self) -> bool:
        return _ask(self, "bool") is True

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __getitem__(self, key: Value) -> Value:
        return _ask(self, "item", key)

    def __setitem__(self, key: Value, value: Value) -> None:
        _ask(self, "set_item", key, value)

    def __delitem__(self, key: Value) -> None:
        _ask(self, "delete_item", key)


class Foreign(Open):
    """An object of the tests, in the program: every operator is asked of it."""


def _refusing(self: Instance, *_: Value, **__: Value) -> Value:
    raise _refused(self)


def _asking(name: str) -> Callable[..., Value]:
    return lambda self, *arguments: _ask(self, "operate", name, *arguments)


_TWO_SIDED = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or"
_ANSWERED = (
    *("lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", "int", "float", "complex", "index", "round", "trunc"),
    *("floor", "ceil", "reversed", "bytes"),
    *(side + name for name in _TWO_SIDED.split() for side in ("", "r", "i")),
)
OPERATORS = frozenset(f"__{name}__" for name in (*_ANSWERED, "eq", "ne", "hash", "contains"))


def _define_operators() -> None:
    for name in _ANSWERED:
        setattr(Instance, f"__{name}__", _refusing)
    for name in ("hash", "str", "format", "getitem", "setitem", "delitem"):
        setattr(Instance, f"__{name}__", _refusing)
    for operator in OPERATORS:
        setattr(Foreign, operator, _asking(operator))


_define_operators()


class _Callable:
    def __call__(self, *positional: Value, **keywords: Value) -> Value:
        return _ask(self, "call", positional, keywords)


class _Iterable:
    def __iter__(self) -> Iterator[Value]:
        return iter(_ask(self, "iterate"))


class _Iterator:
    def __iter__(self) -> Value:
        return self

    def __next__(self) -> Value:
        for value in _ask(self, "send", None):
            return value
        raise StopIteration


_TRAITS: Mapping[str, type] = {"call": _Callable, "next": _Iterator, "iterate": _Iterable}


class Lazy(_Iterator):
    """An iterator of Python's own: what it gives next is asked for when it is wanted."""

    def __init__(self, about: About, ask: Ask) -> None:
        self._asks, self._about = ask, about

    def __repr__(self) -> str:
        return f"<{self._about.name}>"


def make(about: About, ask: Ask, refuse: Refuse, classes: frozenset[str]) -> object:
    """Return what stands for an object of the program in the tests; `classes` are those that the tests name."""
    known = about.name in classes
    if about.kind in ("function", "class"):
        return (Class if about.kind == "class" else Function)(about, ask, refuse, known)
    if about.kind == "object":
        base = Open if known or "plain" in about.traits else Instance
        return _type(base, about)(about, ask, refuse, known)
    return _either(about, ask)


def make_foreign(about: About, ask: Ask) -> object:
    """Return what stands for an object of the tests in the program."""
    if about.kind in ("function", "class"):
        return _function(about, ask)
    if about.kind == "object":
        return _type(Foreign, about)(about, ask, TypeError, True)
    return _either(about, ask)


def _type(base: type[Instance], about: About) -> type[Instance]:
    traits = tuple(kind for trait, kind in _TRAITS.items() if trait in about.traits)
    name = "object" if hasattr(builtins, about.name) else about.name  # no class of a program is Python's own
    return type(name, (*traits, base), {})


def _either(about: About, ask: Ask) -> object:
    if about.kind in ("generator", "map", "filter"):
        return _generated(about.kind, ask)
    if about.kind == "iterator":
        return Lazy(about, ask)
    if about.kind == "error":
        return _error(about)
    raise CodecError("not a value")


def _function(about: About, ask: Ask) -> object:
    """Return a real function that calls one of the other side."""

    def called(*positional: Value, **keywords: Value) -> Value:
        return ask("call", called, positional, keywords)

    called.__name__ = called.__qualname__ = about.name
    return called


def _generated(kind: str, ask: Ask) -> object:
    """Return a generator that takes what another gives, or a `map` or `filter` of it."""
    stand_in: list[Value] = []

    def generate() -> Generator[Value, Value]:
        sent = None
        while True:
            given = ask("send", stand_in[0], sent)
            if len(given) == 0:
                return
            sent = yield given[0]

    made: Iterator[Value] = generate()
    if kind == "map":
        made = map(lambda value: value, made)
    if kind == "filter":
        made = filter(lambda _: True, made)
    stand_in.append(made)
    return made


def _error(about: About) -> type:
    named = [getattr(builtins, name, None) for name in about.traits]
    base = next((kind for kind in named if isinstance(kind, type) and issubclass(kind, Exception)), Exception)
    return type(about.name, (base,), {"__module__": "answer"})


def _own(stand_in: Value, name: str) -> Any:
    """Read an attribute of a stand-in itself."""
    return object.__getattribute__(stand_in, name)


def _ask(stand_in: Value, operation: str, *arguments: Value) -> Any:
    return _own(stand_in, "_asks")(operation, stand_in, *arguments)


def _refused(stand_in: StandIn) -> BaseException:
    return _own(stand_in, "_refuses")(_own(stand_in, "_about").name)  # type: ignore[no-any-return]
