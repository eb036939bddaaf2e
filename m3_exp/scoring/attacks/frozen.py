"""Attacked prompts on their way from one run to another: frozen in a file, the same for all models."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3_exp.types import Json, M3Error, Problem

PLACE = "{content}"  # where the item's sentence goes


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
        return Problem(f"{item.id}@seed{self.seed}", {**item.row, **frozen, "facts": dict(self.facts)})


def read(path: str, benchmark: str, attack: str) -> list[AttackedPrompt]:
    """Read the prompts of one attack: from the items that a run stored, or a JSON list of {attack, seed, prompt}.

    Raises:
        M3Error: the file is neither, or has no prompt of this attack, or has a seed twice.
    """
    held = _json(path)
    facts: Json = {}
    items = stored(path, benchmark)
    if items is not None:
        facts = {"found_on_weights": held.get("weights")}
        rows = [item.row for item in items if "instruction" in item.row]
        found = [{"attack": r["attack"], "seed": r["seed"], "prompt": r["instruction"]} for r in rows]
    else:
        found = held if isinstance(held, list) else []
    prompts = {(p.seed, p.prompt): p for p in (_prompt(path, one, facts) for one in found) if p.attack == attack}
    ordered = [prompts[key] for key in sorted(prompts)]
    if not ordered:
        known = sorted({str(one.get("attack")) for one in found if isinstance(one, dict)})
        raise M3Error(f"prompts={path} has no prompt of attack={attack}; it has {', '.join(known) or 'none at all'}")
    if len({prompt.seed for prompt in ordered}) < len(ordered):
        raise M3Error(f"prompts={path} has two prompts of attack={attack} with one seed: give each its own seed")
    return ordered


def stored(path: str, benchmark: str) -> list[Problem] | None:
    """Return the items that a run stored (store/prepared/KEY.json), or None where the file is something else.

    Raises:
        M3Error: they are another benchmark's.
    """
    file = Path(path).expanduser()
    if file.suffix != ".json" or not file.is_file():
        return None
    held = _json(path)
    if not isinstance(held, dict) or not isinstance(held.get("problems"), list):
        return None
    if held.get("benchmark") != benchmark:
        raise M3Error(f"{path} was made for {held.get('benchmark')}, not for {benchmark}: give its own")
    for number, problem in enumerate(held["problems"]):
        row = problem.get("row") if isinstance(problem, dict) else None
        if not isinstance(row, dict) or not ({"sentence", "label"} <= row.keys()) or "id" not in problem:
            raise M3Error(f"{path}, item {number} is no prepared item (id, row with sentence and label): copy it again")
        if "instruction" in row and not ({"attack", "protocol", "seed", "facts"} <= row.keys()):
            raise M3Error(f"{path}, item {number} does not say its attack, protocol, seed and facts: copy it again")
    return problems_of(held)


def problems_of(held: Json) -> list[Problem]:
    return [Problem(str(problem["id"]), problem["row"]) for problem in held["problems"]]


def _json(path: str) -> Any:
    try:
        return json.loads(Path(path).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise M3Error(
            f"{path} cannot be read ({error}): give a file store/prepared/KEY.json that a run with"
            ' protocol=adaptive wrote, or a JSON list of {"attack", "seed", "prompt"}'
        ) from None


def _prompt(path: str, one: object, facts: Json) -> AttackedPrompt:
    fields = one if isinstance(one, dict) else {}
    attack, seed, prompt = fields.get("attack"), fields.get("seed"), fields.get("prompt")
    if not isinstance(attack, str) or type(seed) is not int or not isinstance(prompt, str) or PLACE not in prompt:
        raise M3Error(
            f"prompts={path}: {json.dumps(one)[:80]} is not a prompt; each needs attack (a word), seed (a whole number)"
            f" and prompt (a text with {PLACE})"
        )
    return AttackedPrompt(attack, seed, prompt, facts)
