"""`m3 init BASE A B`: own checkpoints as a family, written into a --config-dir from what their files say.

    written = write("models/base", ["math=models/sft", "models/coder"], name="mine", out=Path("own"))

    own/family/mine.yaml     base, experts, dtype, chat template, sizes
    own/pair/math_coder.yaml and own/pair/math.yaml, own/pair/coder.yaml: what is merged, what stands alone

A model of the hub must lie in its cache: nothing is fetched. What cannot be merged is refused before a file is written.
"""

import itertools
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from m3_exp.command_line import names as choices
from m3_exp.config.choices import pair_experts
from m3_exp.config.experts import TAKEN, path_names
from m3_exp.config.values import source
from m3_exp.merging import check
from m3_exp.merging.checkpoint import open_model
from m3_exp.merging.model_config import cache_values
from m3_exp.merging.source import absolute, parse_source, without_fetching
from m3_exp.merging.tokenizer import tokenizer_directory
from m3_exp.reading.files import exists, read_json
from m3_exp.store import Store, write_atomic
from m3_exp.types import Json, M3Error, Recipe, Source

_TASK_ARITHMETIC = "m3_exp.merging.methods.task_arithmetic:task_arithmetic"  # it reads the base and every expert


@dataclass(frozen=True)
class Written:
    """The files that were written, and the commands that use them."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        return [*map(str, self.files), "next:", *(f"  {command}" for command in self.commands)]


def write(base: str, experts: Sequence[str], *, name: str | None = None, out: Path) -> Written:
    """Write the yaml files of a family of checkpoints, and those of its pairs.

    Args:
        experts: a model each, or NAME=MODEL; without a name it has that of its last folder.
        name: the family's; without one it has that of the base's last folder.

    Raises:
        M3Error: the models cannot be merged, a name is taken, or a file of that name says something else.
    """
    named = _named(experts)
    models = {key: absolute(parse_source(source(text, key))) for key, text in {"base": base, **named}.items()}
    if again := [model for model, times in Counter(models.values()).items() if times > 1]:
        raise M3Error(f"{again[0]} is given twice: give a base and experts that differ from it and from one another")
    family = _name(name or path_names([base])[0])
    if family in choices("family"):
        raise M3Error(f"a family {family} is shipped: give another name, as --name my_{family}")
    content = {Path("family") / f"{family}.yaml": _family(family, models, out)}
    merged = [*itertools.combinations(named, 2), *([tuple(named)] if len(named) > 2 else [])]
    for held in (*merged, *((one,) for one in named)):
        if pair_experts("_".join(held), ()) != list(held):
            content[Path("pair") / f"{'_'.join(held)}.yaml"] = _pair(held)
    for path, text in content.items():
        _refuse_another(out / path, text)
    for path, text in content.items():
        write_atomic(out / path, text.encode())
    return Written(tuple(out / path for path in content), tuple(_commands(family, list(named), out)))


def _commands(family: str, named: Sequence[str], out: Path) -> Iterator[str]:
    """Give the commands to type next: what is missing, the experts alone, their merge."""
    which, asked = [f"--config-dir={out}", f"family={family}"], "evaluator=[gsm8k]"
    alone, merge = f"pair={','.join(named)}", f"pair={'_'.join(named)}"
    yield shlex.join(["m3", "doctor", *which, merge])
    if len(named) > 1:
        yield shlex.join(["m3", "run", "-m", *which, alone, asked])
    yield shlex.join(["m3", "run", *which, merge, asked, *(["ratio=grid"] if len(named) == 2 else [])])


def _named(experts: Sequence[str]) -> dict[str, str]:
    """Return the models by name, as they are given or as their folders are called."""
    found = [re.fullmatch(r"([A-Za-z][\w.-]*)=(.+)", text) for text in experts]
    given = {number: one for number, one in enumerate(found) if one and not exists(Path(experts[number]))}
    texts = [given[number][2] if number in given else text for number, text in enumerate(experts)]
    names = [given[n][1] if n in given else _name(own) for n, own in enumerate(path_names(texts))]
    for one, times in Counter(names).items():
        if times > 1:
            raise M3Error(f"two experts are called {one}: give one another name, as {one}_2={texts[names.index(one)]}")
        if one in TAKEN:
            raise M3Error(f"{one} means something else in tables: name that expert, as in my_{one}={texts[0]}")
    return dict(zip(names, texts, strict=True))


def _name(text: str) -> str:
    """Return a name that is typed without quotes, as `family=NAME`: it begins with a letter."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")
    return name if re.match(r"[A-Za-z]", name) else f"m{name}"


def _family(name: str, models: Mapping[str, Source], out: Path) -> str:
    """Return the yaml of a family, with what the files of its models say.

    Raises:
        M3Error: the models cannot be merged, or one is not on this machine.
    """
    (_, base), *named = models.items()
    experts = [model for _, model in named]
    recipe = Recipe(base, tuple(experts), _TASK_ARITHMETIC, {"scaling": 1.0})
    with tempfile.TemporaryDirectory() as folder, without_fetching():
        store = Store(Path(folder))
        forecast = check.forecast(recipe, store)
        first = open_model(experts[0], store)
        rows = {key: open_model(model, store).vocabulary for key, model in models.items()}
        has_template = [_has_template(model, store) for model in experts]
    lines = {
        "defaults": ["_base"], "name": name, "base": str(base),
        "experts": {key: str(model) for key, model in named},
        "dtype": first.dtype, "vocab": "mean", "chat_template": all(has_template),
        "parameters": forecast.parameters, "cache_values": cache_values(first.config),
    }  # fmt: skip
    said = {
        "dtype": f"as {named[0][0]} is stored",
        "vocab": f"rows: {', '.join(f'{count} {key}' for key, count in rows.items())}; mean pads the shorter ones",
        "chat_template": "all experts have one" if all(has_template) else "not every expert has one",
        "cache_values": "of the KV cache, a token",
    }  # fmt: skip
    return "\n".join(
        [
            f"# Written by m3 init, from what the files of these models say. m3 run --config-dir={out} family={name}",
            *(_line({key: value}, said.get(key)) for key, value in lines.items()),
            "",
        ]
    )


def _line(entry: Json, comment: str | None) -> str:
    text = yaml.safe_dump(entry, sort_keys=False, width=1000, allow_unicode=True).rstrip()
    return f"{text}   # {comment}" if comment else text


def _has_template(model: Source, store: Store) -> bool:
    """Tell whether the tokenizer of a model has a chat template."""
    try:
        folder = tokenizer_directory(model, store)
    except M3Error:
        return False
    settings = folder / "tokenizer_config.json"
    own = bool(read_json(settings).get("chat_template")) if exists(settings) else False
    return own or exists(folder / "chat_template.jinja")


def _pair(experts: Sequence[str]) -> str:
    pair = yaml.safe_dump({"pair": {"name": "_".join(experts), "experts": list(experts)}}, sort_keys=False)
    return f"""\
# @package _global_
defaults:
  - /evaluator: [gsm8k]   # what is asked; m3 plan --list names all benchmarks, evaluator=[A,B] chooses others
  - _self_
{pair}"""


def _refuse_another(path: Path, text: str) -> None:
    if exists(path) and path.read_text(encoding="utf-8", errors="replace") != text:
        raise M3Error(f"{path} is there already and says something else: give another --name or --out, or remove it")
