"""What crosses between an engine's process and ours: one JSON object a line, and the nouns in it.

to the child     {"do": "start" | "load" | "generate" | "loglikelihood" | "close", ...}
from the child   {"ready"}, {"loaded"}, {"answer"}, {"likelihood"}, {"progress"}, {"refused"}, {"done"}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from m3_exp.types import EngineSettings, Json, Prompt, Recipe, Sampling, Source, plain

Pair = tuple[Prompt, tuple[int, ...]]  # a prompt and a continuation of it


@dataclass(frozen=True)
class Progress:
    """How far a call is: items done of `total`, and generated (or scored) tokens a second since it began."""

    done: int
    total: int
    tokens_per_second: float


def line(message: Mapping[str, object]) -> bytes:
    """Write one message; text is escaped to ASCII, so that any string survives (lone surrogates too)."""
    return json.dumps(plain(message), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def recipe_from(value: Json) -> Recipe:
    """Make the recipe that `plain` took apart."""
    weights = value["weights"]
    return Recipe(
        **{
            **value,
            "base": source_from(value["base"]),
            "experts": tuple(source_from(expert) for expert in value["experts"]),
            "weights": None if weights is None else tuple(weights),
        }
    )


def source_from(value: Json) -> Source:
    return Source(**value)


def sampling_from(value: Json) -> Sampling:
    return Sampling(**{**value, "stops": tuple(value["stops"])})


def settings_from(value: Json) -> EngineSettings:
    numbers = {name: value[name] if value[name] is None else tuple(value[name]) for name in ("cores", "devices")}
    return EngineSettings(**{**value, **numbers})


def prompt_from(value: Json) -> Prompt:
    return Prompt(value["id"], tuple(value["token_ids"]))
