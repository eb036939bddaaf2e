"""A recipe of mergekit as its YAML file writes it, read into plain values: every key checked, nothing computed yet.

    read(Path("merge.yaml")) -> Document

A model is a text as m3 writes it: a directory, a hub id with @revision, or either of these + ADAPTER. `models` are one
slice of all layers, to which the base belongs where it is not listed. A setting is a tuple of conditions, of which the
first one whose filter is found in a tensor's name counts; a number or a list without a filter is one condition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from m3_exp.reading.files import MIB, read_text
from m3_exp.reading.shown import short
from m3_exp.reading.yaml_files import FAST, check_yaml
from m3_exp.types import M3Error

Scalar = bool | int | float | str
_KNOWN = (
    *("merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "chat_template"),
)
_OF_MOE = ("experts", "gate_mode", "shared_experts", "experts_per_token")
_LAYERS = 10_000  # more is a slip of the pen


@dataclass(frozen=True)
class Condition:
    """A value, or values over depth, for tensors in whose name the filter is found; without a filter for every one."""

    filter: str | None
    values: tuple[Scalar, ...]


Setting = tuple[Condition, ...]
Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Input:
    """One model of a slice; `layers` is [start, stop), None where all of them are meant."""

    model: str
    layers: tuple[int, int] | None
    settings: Settings


@dataclass(frozen=True)
class Slice:
    inputs: tuple[Input, ...]
    settings: Settings


@dataclass(frozen=True)
class Document:
    """One recipe. `notes` say what of the file has no effect on the weights."""

    path: Path
    method: str
    base: str | None
    slices: tuple[Slice, ...]
    settings: Settings
    dtype: str | None
    tokenizer: str | None  # base, union, or a model
    notes: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are merged, each once, in the order of the file."""
        return tuple(dict.fromkeys(one.model for part in self.slices for one in part.inputs))


def read(path: Path) -> Document:
    """Read a recipe of mergekit 0.1.5.

    Raises:
        M3Error: the file is no YAML of bounded size, no recipe, or asks for what a merge of m3 never is: several
            recipes in one file, a mixture of experts, modules, an architecture in place of the model's own.
    """
    tree = _tree(path)
    reader = _Reader(path)
    for key in _OF_MOE:
        if key in tree:
            raise reader.wrong(
                key,
                tree[key],
                "belongs to mergekit-moe, which builds a mixture of experts; m3 merges models of one shape",
            )
    if tree.get("modules") is not None:
        raise reader.wrong(
            "modules", tree["modules"], "merges parts of a multimodal model apart; m3 takes models or slices"
        )
    base = reader.model("base_model", tree["base_model"]) if tree.get("base_model") is not None else None
    lists = [key for key in ("models", "slices") if tree.get(key)]
    if len(lists) != 1:
        raise M3Error(f"{path} has {' and '.join(lists) or 'neither models nor slices'}: mergekit needs one of the two")
    slices = reader.slices(tree["slices"], base) if lists == ["slices"] else (reader.whole(tree["models"], base),)
    method = reader.text("merge_method", tree.get("merge_method"))
    settings = reader.settings("parameters", tree.get("parameters"))
    if tree.get("chat_template") is not None:
        reader.notes.append("chat_template is left out: the chat template of the tokenizer's model goes along")
    reader.ignored("", tree, _KNOWN)
    return Document(
        path, method, base, slices, settings, reader.dtype(tree), reader.tokenizer(tree), tuple(reader.notes)
    )


def _tree(path: Path) -> Mapping[str, object]:
    """Return the mapping of a file that holds one YAML document."""
    text = read_text(path, MIB)
    try:
        documents = sum(isinstance(event, yaml.DocumentStartEvent) for event in yaml.parse(text, FAST))
    except (yaml.YAMLError, ValueError):
        documents = 1  # what is wrong with it is said below
    if documents > 1:
        raise M3Error(
            f"{path} holds {documents} YAML documents, as mergekit-multi takes them: m3 imports one recipe a file; "
            "write each into a file of its own, and give the directory of a merge where the next one names it"
        )
    check_yaml(path)
    tree = yaml.load(text, FAST)
    if not isinstance(tree, dict):
        raise M3Error(f"{path} holds no mapping: a recipe of mergekit has merge_method, models or slices, ...")
    return {str(key): value for key, value in tree.items()}


class _Reader:
    """Checks values of one file; a refusal names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []

    def wrong(self, key: str, value: object, why: str) -> M3Error:
        return M3Error(f"{self.path}: {key}={short(value, 60)} {why}")

    def text(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, value, "is no text: give one")
        if "${" in value:
            raise self.wrong(key, value, "holds ${, which m3 reads as a reference to a setting: write the value itself")
        return value.strip()

    def mapping(self, key: str, value: object) -> Mapping[str, object]:
        if not isinstance(value, dict):
            raise self.wrong(key, value, "is no mapping of KEY: VALUE")
        return {str(name): held for name, held in value.items()}

    def items(self, key: str, value: object) -> Sequence[object]:
        if not isinstance(value, list) or not value:
            raise self.wrong(key, value, "is no list: give at least one entry")
        return value

    def ignored(self, key: str, held: Mapping[str, object], known: Sequence[str]) -> None:
        """Note the keys that mergekit takes no notice of."""
        for name in held:
            if name not in known:
                self.notes.append(f"{f'{key}.' if key else ''}{name} has no effect in mergekit: it is left out")

    def model(self, key: str, value: object) -> str:
        """Return a model as m3 writes it."""
        if isinstance(value, str):
            return self.text(key, value)
        held = self.mapping(key, value)
        if held.get("override_architecture") is not None:
            raise self.wrong(
                f"{key}.override_architecture",
                held["override_architecture"],
                "reads a model as another architecture; m3 merges models as their config.json says",
            )
        if "path" in held:
            revision = held.get("revision")
            return self.text(f"{key}.path", held["path"]) + (f"@{revision}" if revision is not None else "")
        text = self.model(f"{key}.model", held.get("model"))
        return text if held.get("lora") is None else f"{text}+{self.model(f'{key}.lora', held['lora'])}"

    def whole(self, value: object, base: str | None) -> Slice:
        """Return `models` as one slice of all layers, the base among them."""
        inputs: list[Input] = []
        for number, one in enumerate(self.items("models", value)):
            key = f"models[{number}]"
            held = self.mapping(key, one)
            settings = self.settings(f"{key}.parameters", held.get("parameters"))
            inputs.append(Input(self.model(f"{key}.model", held.get("model")), None, settings))
            self.ignored(key, held, ("model", "parameters"))
        if base is not None and base not in (one.model for one in inputs):
            inputs.append(Input(base, None, {}))
        return self.checked("models", Slice(tuple(inputs), {}))

    def slices(self, value: object, base: str | None) -> tuple[Slice, ...]:
        return tuple(
            self.slice(f"slices[{number}]", one, base) for number, one in enumerate(self.items("slices", value))
        )

    def slice(self, key: str, value: object, base: str | None) -> Slice:
        held = self.mapping(key, value)
        own = held.get("base_model")
        if own is not None and self.model(f"{key}.base_model", own) != base:
            raise self.wrong(
                f"{key}.base_model", own, f"differs from base_model={base}: m3 has one base for all layers"
            )
        inputs: list[Input] = []
        for number, one in enumerate(self.items(f"{key}.sources", held.get("sources"))):
            place = f"{key}.sources[{number}]"
            source = self.mapping(place, one)
            layers = self.layers(f"{place}.layer_range", source.get("layer_range"))
            settings = self.settings(f"{place}.parameters", source.get("parameters"))
            inputs.append(Input(self.model(f"{place}.model", source.get("model")), layers, settings))
            self.ignored(place, source, ("model", "layer_range", "parameters"))
        self.ignored(key, held, ("sources", "base_model", "parameters"))
        return self.checked(
            f"{key}.sources", Slice(tuple(inputs), self.settings(f"{key}.parameters", held.get("parameters")))
        )

    def checked(self, key: str, part: Slice) -> Slice:
        """Refuse a model that stands twice in one slice, as mergekit does."""
        names = [one.model for one in part.inputs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise self.wrong(key, twice[0], "names a model twice: name it once, with the sum of its weights")
        return part

    def layers(self, key: str, value: object) -> tuple[int, int]:
        given = value if isinstance(value, list) else []
        numbers = [one for one in given if isinstance(one, int) and not isinstance(one, bool)]
        if len(given) != 2 or len(numbers) != 2 or not 0 <= numbers[0] < numbers[1] <= _LAYERS:
            raise self.wrong(key, value, "is no range of layers: give [START, STOP], as [0, 16] for the first 16")
        return numbers[0], numbers[1]

    def settings(self, key: str, value: object) -> Settings:
        if value is None:
            return {}
        return {name: self.setting(f"{key}.{name}", held) for name, held in self.mapping(key, value).items()}

    def setting(self, key: str, value: object) -> Setting:
        """Return the conditions of a parameter: a number, a gradient, or these with filters."""
        entries = value if isinstance(value, list) else [value]
        if not any(isinstance(one, dict) for one in entries):
            return (Condition(None, self.values(key, value)),)
        found = []
        for number, one in enumerate(entries):
            place = f"{key}[{number}]" if isinstance(value, list) else key
            held = self.mapping(place, one)
            where = held.get("filter")
            name = None if where is None or where == "*" else self.text(f"{place}.filter", where)
            found.append(Condition(name, self.values(f"{place}.value", held.get("value"))))
        return tuple(found)

    def values(self, key: str, value: object) -> tuple[Scalar, ...]:
        """Return a scalar as a gradient of one value. A text that reads as a number is one: 1e-5 is text in YAML."""
        entries = value if isinstance(value, list) else [value]
        found = tuple(_number(one) for one in entries if isinstance(one, bool | int | float | str))
        if not found or len(found) < len(entries):
            raise self.wrong(key, value, "is no value: give a number, true or false, or a list of numbers over depth")
        return found

    def dtype(self, tree: Mapping[str, object]) -> str | None:
        """Return the type of the merged weights: out_dtype, else dtype."""
        for key in ("out_dtype", "dtype"):
            if tree.get(key) is not None:
                name = self.text(key, tree[key]).removeprefix("torch.")
                if name not in ("bfloat16", "float16", "float32"):
                    raise self.wrong(key, name, "is not known here: give bfloat16, float16 or float32")
                return name
        return None

    def tokenizer(self, tree: Mapping[str, object]) -> str | None:
        """Return whose tokenizer goes along: base, union or a model; None where the file does not say."""
        source, settings = tree.get("tokenizer_source"), tree.get("tokenizer")
        if source is not None and settings is not None:
            raise M3Error(f"{self.path} has tokenizer and tokenizer_source: mergekit takes one of the two")
        if settings is None:
            return None if source is None else self.model("tokenizer_source", source)
        held = self.mapping("tokenizer", settings)
        for key in ("tokens", "pad_to_multiple_of"):
            if held.get(key):
                raise self.wrong(
                    f"tokenizer.{key}", held[key], "changes rows of the embedding; m3 keeps the rows of its models"
                )
        return self.model("tokenizer.source", held.get("source", "union"))


def _number(value: Scalar) -> Scalar:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
