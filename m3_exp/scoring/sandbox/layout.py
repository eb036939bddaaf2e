"""How a set lies in its table, and how to build another that lies the same: iteration, `pop` and growth follow from it.

CPython's table (Objects/setobject.c): an element lies in the first free place of a sequence that its hash determines.
What is removed leaves a hole, which may be used again. So a set is rebuilt by adding its elements to a table of the
same size, each after those that lie on the way to its place. Where a hole is to be, something is added and removed
again. Elements that lie in each other's way (some came into holes) are each added to a place that is held by a
placeholder first.

The table is read from memory where the interpreter keeps it as expected, else only the order of iteration is told.
"""

import ctypes
from collections.abc import Iterator, Sequence

# Places of the table, the one where `pop` begins to look, the places of holes, and those of the last elements.
Form = tuple[int, int, list[int], list[int]]
Set = set[object] | frozenset[object]

FARTHEST = 1 << 12  # place where `pop` begins to look, in a table that may since have become smaller

_SMALLEST = 8
_NEIGHBOURS = 9  # that are looked at before a jump
_WORDS = ctypes.c_ssize_t * 6
_FILL, _MASK, _TABLE, _FINGER = 0, 2, 3, 5
_REMOVED = -1  # in place of a hash
_PLAIN = frozenset({"builtins", "fractions", "decimal", "datetime"})  # modules of types that compare as Python does


def state(value: Set) -> tuple[int, ...]:
    """Return numbers that change when the table of a set or frozenset does."""
    if not _READABLE:
        return ()
    words = _words(value)
    return words[_FILL], words[_MASK], words[_FINGER]


def plan(value: Set) -> tuple[Form | None, list[object]]:
    """Return the arguments with which `fill` and `frozen` make a set like this one; None is a small set without holes.

    For objects that hash by address only the order of iteration can be kept.
    """
    items = list(set.__iter__(value) if isinstance(value, set) else frozenset.__iter__(value))
    if not _READABLE:
        return None, items
    words = _words(value)
    size = words[_MASK] + 1
    finger = words[_FINGER] if words[_FINGER] <= FARTHEST else words[_FINGER] & size - 1
    if words[_FILL] == len(items) < 2 and not finger:
        return None, items
    table = (ctypes.c_ssize_t * (2 * size)).from_address(words[_TABLE])[:]
    places = [place for place in range(size) if table[2 * place]]
    holes = [place for place in places if table[2 * place + 1] == _REMOVED]
    taken = [place for place in places if table[2 * place + 1] != _REMOVED]
    entries = [(place, table[2 * place + 1], item) for place, item in zip(taken, items, strict=True)]
    order, late = _in_order(entries, holes, size - 1)
    if size == _SMALLEST and not holes and not finger and not late:
        return None, order
    made_of_values = not order or type(order[0]).__module__ in _PLAIN
    return (size, finger, holes, late) if holes or made_of_values else None, order


def fill(target: set[object], form: Form | None, order: Sequence[object]) -> None:
    """Empty a set and add elements so that it has this form."""
    target.clear()
    if form is None and not (_READABLE and _words(target)[_FINGER]):
        for item in order:
            target.add(item)
        return
    for hole in _filled(target, form or (_SMALLEST, 0, [], []), order):
        target.discard(hole)


def frozen(form: Form | None, order: Sequence[object]) -> frozenset[object]:
    """Make a frozenset of this form; where it has holes and is fuller or emptier than usual, only a similar one."""
    if form is None:
        return frozenset(list(order))
    size, _, holes, late = form
    if holes or late:
        base: set[object] = set()
        return frozenset(_filled(base, form, order)) ^ base
    early = _room(size)
    made = frozenset(_sized(list(order[:early]), size))
    return made.union(order[early:]) if order[early:] else made


def _filled(target: set[object], form: Form, order: Sequence[object]) -> "list[_Hole]":
    """Fill an empty set; return what is still to be removed from it."""
    size, finger, places, late = form
    if finger or (_READABLE and _words(target)[_FINGER]):
        _point(target, finger or size)
    holes = [_Hole(place) for place in places]
    instead = [_Hole(place) for place in late]
    first = len(order) - len(late)
    keys = [*holes, *order[:first], *instead]
    early = _room(size)
    target.update(_sized(keys[:early], size))
    for key in keys[early:]:
        target.add(key)
    for hole, item in zip(instead, order[first:], strict=True):
        target.discard(hole)
        target.add(item)
    return holes


class _Hole:
    """A placeholder: it is added at a place to be removed again."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __hash__(self) -> int:
        return self._place


class _Double:
    """A second key that a dict takes for another and a set takes for the same."""

    def __init__(self, key: object) -> None:
        self._key, self.same = key, False

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self.same and other is self._key


def _room(size: int) -> int:
    """Return how many keys a dict must have for a set made from it to get a table of this size."""
    return size // 2 - 1 if size > _SMALLEST else _SMALLEST


def _sized(keys: list[object], size: int) -> dict[object, None]:
    """Return a dict from which a set of this table size is made; where keys are lacking, `_Double`s fill it up."""
    if size == _SMALLEST or not keys:
        return dict.fromkeys(keys)
    doubles = [_Double(keys[0]) for _ in range(size // 4 + 1 - len(keys))]
    made = dict.fromkeys([keys[0], *doubles, *keys[1:]])
    for double in doubles:
        double.same = True
    return made


def _point(target: set[object], finger: int) -> None:
    """Make `pop` begin to look at a given place from now on, in an empty set with a small table."""
    size = _SMALLEST
    while size < finger:
        size *= 2
    target.update(_sized([_Hole(finger - 1)], size))
    target.pop()
    for place in range(size // 4):
        hole = _Hole(place)
        target.add(hole)
        target.discard(hole)
    target.difference_update(())  # makes a table anew of which more than a quarter is holes


def _in_order(
    entries: Sequence[tuple[int, int, object]], holes: list[int], mask: int
) -> tuple[list[object], list[int]]:
    """Return the elements of (place, hash, element)s, each after all that lie on the way to its place.

    Where the last ones lie in each other's way, their places are returned too.
    """
    order: list[object] = []
    there = set(holes)
    pending = list(entries)
    while pending:
        later = []
        for entry in pending:
            place, code, item = entry
            if place == code & mask or all(step in there for step in _way(code, mask, place)):
                order.append(item)
                there.add(place)
            else:
                later.append(entry)
        if len(later) == len(pending):
            return [*order, *(item for _, _, item in later)], [place for place, _, _ in later]
        pending = later
    return order, []


def _way(code: int, mask: int, end: int) -> Iterator[int]:
    """Give the places that are looked at for a hash before the place `end`."""
    rest = code & (1 << 64) - 1
    start = rest & mask
    while True:
        for place in range(start, start + 1 + (_NEIGHBOURS if start + _NEIGHBOURS <= mask else 0)):
            if place == end:
                return
            yield place
        rest >>= 5
        start = start * 5 + 1 + rest & mask


def _words(value: Set) -> tuple[int, ...]:
    """Return fill, used, mask, the address of the table, a hash and the finger of a set or frozenset."""
    return tuple(_WORDS.from_address(id(value) + object.__basicsize__))


def _readable() -> bool:
    """Say whether a set lies in memory as CPython 3.7 to 3.14 have it."""
    if not isinstance(set.__basicsize__, int) or set.__basicsize__ < object.__basicsize__ + ctypes.sizeof(_WORDS):
        return False
    probe = {*range(0, 40, 8)}
    probe.discard(8)
    words = _words(probe)
    size = (probe.__sizeof__() - _SMALL_SIZE) // (2 * ctypes.sizeof(ctypes.c_ssize_t))
    return words[:3] == (5, 4, size - 1) and words[_FINGER] == 0 and size == 32


_SMALL_SIZE = set().__sizeof__()
_READABLE = _readable()
