"""A set's order of iteration: how to build one whose elements come in the order, and lie in a table, of another's.

Elements are added in some order, some of them by way of a frozenset (as Python makes a set of constants: it merges a
frozenset, into a smaller table than one by one). Which way gives the same is found by trying.
"""

import itertools
import operator
from collections.abc import Iterable
from typing import Any

_FEW = 6  # elements of which every order is tried
_MOST_SPLITS = 64
_MOST_REPAIRS = 20


def fill(target: set[Any], merged: int, order: list[Any]) -> None:
    """Empty a set and add elements, the first so many of them merged from a frozenset."""
    target.clear()
    target.update(frozenset(order[:merged]))
    for item in order[merged:]:
        target.add(item)


def frozen(merged: int, order: list[Any]) -> frozenset[Any]:
    """Make a frozenset of elements, merged from a set or one by one."""
    return frozenset(set(order)) if merged else frozenset(order)


def plan(value: set[Any]) -> tuple[int, list[Any]]:
    """Return the arguments with which `fill` makes a set like this one; the nearest where none is found."""
    items = list(set.__iter__(value))
    splits = (0, len(items), *range(1, min(len(items), _MOST_SPLITS)))

    def build(merged: int, order: list[Any]) -> set[Any]:
        made: set[Any] = set()
        fill(made, merged, order)
        return made

    return _found(items, set.__sizeof__(value), build, splits)


def frozen_plan(value: frozenset[Any]) -> tuple[int, list[Any]]:
    """Return the arguments with which `frozen` makes a frozenset like this one; the nearest where none is found."""
    items = list(frozenset.__iter__(value))
    return _found(items, frozenset.__sizeof__(value), frozen, (0, len(items)))


def _found(items: list[Any], size: int, build: Any, splits: Iterable[int]) -> tuple[int, list[Any]]:
    if len(items) < 2:
        return 0, items
    first = _homes_first(items, size)
    for merged in splits:
        starts = [items, first, *(itertools.permutations(items) if len(items) <= _FEW else ())]
        for start in map(list, starts):
            made = build(merged, start)
            if made.__sizeof__() != size:
                break
            if order := _ordered(items, start, made, lambda order: build(merged, order)):  # noqa: B023
                return merged, order
    return 0, items


def _homes_first(items: list[Any], size: int) -> list[Any]:
    """Return what lies in the place that its hash names, then the rest: growing the table does not move the former."""
    mask = max(8, (size - set().__sizeof__()) // 16) - 1
    taken: set[int] = set()
    home: list[Any] = []
    away: list[Any] = []
    for item in items:
        place = step = hash(item) & (1 << 64) - 1
        place &= mask
        start = place
        while (found := next((p for p in range(place, place + _run(place, mask)) if p not in taken), None)) is None:
            step >>= 5
            place = (place * 5 + 1 + step) & mask
        taken.add(found)
        (home if found == start else away).append(item)
    return [*home, *away]


def _run(place: int, mask: int) -> int:
    """Return how many neighbours CPython tries before it jumps."""
    return 10 if place + 9 <= mask else 1


def _ordered(items: list[Any], order: list[Any], made: Iterable[Any], build: Any) -> list[Any] | None:
    """Return an order of adding that gives this order of iteration: what came before it in its stead is added later."""
    for _ in range(_MOST_REPAIRS):
        found = list(made)
        if len(found) != len(items):
            return None
        late = next((i for i, same in enumerate(map(operator.is_, found, items)) if not same), None)
        if late is None:
            return order
        item, early = items[late], found[late]
        rest = [other for other in order if other is not item]
        place = next(i for i, other in enumerate(rest) if other is early)
        order = [*rest[:place], item, *rest[place:]]
        made = build(order)
    return None
