"""Attacked prompts on their way from one run to another: frozen in a file, the same for all models."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from m3_exp.reading.files import TEXT, check_finite, read_json
from m3_exp.reading.paths import expanded, is_file
from m3_exp.reading.typed import Strict, checked
from m3_exp.types import Json, M3Error, Problem

PLACE = "{content}"  # where the item's sentence goes
MARK = "@seed"  # in the ids of attacked items alone


@dataclass(frozen=True)
class AttackedPrompt:
    """An instruction under attack, with {content} where the sentence goes; `facts` say how it was found."""

    attack: str
    seed: int
    prompt: str
    facts: Mapping[str, Any]

    def problem(self, item: Problem, protocol: str) -> Problem:
        """Return an item with this instruction, as `ITEM@seedK`."""
        frozen = {"attack": self.attack, "protocol": protocol, "seed": self.seed, "instruction": self.prompt}
        return Problem(f"{item.id}{MARK}{self.seed}", {**item.row, **frozen, "facts": dict(self.facts)})


class _Clean(Strict):
    sentence: str
    label: Annotated[int, Field(ge=0, le=1)]


class _Attacked(_Clean):
    attack: str
    protocol: str
    instruction: str
    seed: Annotated[int, Field(ge=0, lt=1 << 31)]
    facts: Json


class _Item(Strict):
    id: Annotated[str, Field(min_length=1)]
    row: Json


class _Stored(Strict):
    problems: Annotated[list[_Item], Field(min_length=1)]


def read(path: str, benchmark: str, attack: str) -> list[AttackedPrompt]:
    """Read the prompts of one attack: from the items that a run stored, or a JSON list of {attack, seed, prompt}.

    Raises:
        M3Error: the file is neither, or has no prompt of this attack, or has a seed twice.
    """
    held = read_json(Path(expanded(path, "prompts")), object, TEXT)
    check_finite(held, path)
    facts: Json = {}
    items = stored(path, benchmark)
    if items is not None:
        facts = {"found_on_weights": held.get("weights")}
        rows = [item.row for item in items if "instruction" in item.row]
        entries = [{"attack": r["attack"], "seed": r["seed"], "prompt": r["instruction"]} for r in rows]
    elif isinstance(held, list):
        entries = held
    else:
        raise M3Error(
            f"prompts={path} holds no prompts: give a file store/prepared/KEY.json that a run with protocol=adaptive"
            ' wrote, or a JSON list of {"attack", "seed", "prompt"}'
        )
    prompts = {(p.seed, p.prompt): p for p in (_prompt(path, one, facts) for one in entries) if p.attack == attack}
    ordered = [prompts[key] for key in sorted(prompts)]
    if not ordered:
        known = sorted({str(one.get("attack")) for one in entries if isinstance(one, dict)})
        raise M3Error(f"prompts={path} has no prompt of attack={attack}; it has {', '.join(known) or 'none at all'}")
    if len({prompt.seed for prompt in ordered}) < len(ordered):
        raise M3Error(f"prompts={path} has two prompts of attack={attack} with one seed: give each its own seed")
    return ordered


def stored(path: str, benchmark: str) -> list[Problem] | None:
    """Return the items that a run stored (store/prepared/KEY.json), or None where the file is something else.

    Raises:
        M3Error: they are another benchmark's, or an item is none that a run stored.
    """
    file = Path(expanded(path, "items"))
    if file.suffix != ".json" or not is_file(file):
        return None
    held = read_json(file, object, TEXT)
    if not isinstance(held, dict) or not isinstance(held.get("problems"), list):
        return None
    if held.get("benchmark") != benchmark:
        raise M3Error(f"{path} was made for {held.get('benchmark')}, not for {benchmark}: give its own")
    check_finite(held, path)
    problems = [Problem(item.id, item.row) for item in checked(_Stored, held, path).problems]
    for number, problem in enumerate(problems):
        _check(problem, f"{path}: problems.{number}")
    if len({problem.id for problem in problems}) < len(problems):
        raise M3Error(f"{path} holds an item twice: copy it again")
    return problems


def _check(problem: Problem, where: str) -> None:
    if "instruction" not in problem.row:
        checked(_Clean, problem.row, f"{where}.row")
        check_clean(problem, where)
        return
    row = checked(_Attacked, problem.row, f"{where}.row")
    if not problem.id.endswith(f"{MARK}{row.seed}") or MARK in problem.id.removesuffix(f"{MARK}{row.seed}"):
        raise M3Error(f"{where}: an item attacked with seed {row.seed} is called ITEM{MARK}{row.seed}: copy it again")


def check_clean(problem: Problem, where: str) -> None:
    """Raise M3Error where an item that is not attacked looks like one that is."""
    if MARK in problem.id:
        raise M3Error(f"{where}: the id {problem.id!r} holds {MARK}, as attacked items' do: give it another")
    if "instruction" in problem.row:
        raise M3Error(f"{where}: item {problem.id!r} has a column `instruction`, as attacked items do: leave it out")


def _prompt(path: str, one: object, facts: Json) -> AttackedPrompt:
    fields = one if isinstance(one, dict) else {}
    attack, seed, prompt = fields.get("attack"), fields.get("seed"), fields.get("prompt")
    texts = isinstance(attack, str) and isinstance(prompt, str) and PLACE in prompt
    if not texts or type(seed) is not int or not 0 <= seed < 1 << 31:
        raise M3Error(
            f"prompts={path}: {json.dumps(one)[:80]} is not a prompt; each needs attack (a word), seed (a whole number)"
            f" and prompt (a text with {PLACE})"
        )
    return AttackedPrompt(str(attack), seed, str(prompt), facts)
