"""One override of the command line: parsed by Hydra's grammar, refused in one line, quoted as it is typed again."""

import functools
import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from m3_exp.command_line import names, quoted
from m3_exp.config.suggestions import of_choice
from m3_exp.reading.paths import expanded
from m3_exp.types import M3Error

PATH_SETTINGS = ("items", "annotations", "prompts", "masked_lm")  # of evaluators
_PATHS = (
    *("out", "store", "items", "engine.answers", "family.base", "family.experts", "family.masked_lm", "tracker.dir"),
    "method.text",
)
ARGUMENTS = "chat_args is one quoted word: 'chat_args={enable_thinking: false}'"
_LONGEST = 20_000  # characters of an override
_DEEPEST = 50  # brackets open in one


@functools.lru_cache(maxsize=4096)  # the products of a sweep share most of them
def parse(text: str) -> Override:
    """Parse an override. A `+` before a key that is no group says nothing here: no key is new, and each may be set."""
    if (added := re.match(r"\+{1,2}([A-Za-z][\w.]*)=", text)) and not names(added[1]):
        text = text.lstrip("+")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise M3Error(f"{text[:200]} is not UTF-8: rename what it names, or give another path to it") from None
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise M3Error(f"{text[:200]} holds a control character, which no value can: correct it")
    if len(text) > _LONGEST or _depth(text) > _DEEPEST:
        what = f"longer than {_LONGEST} characters" if len(text) > _LONGEST else f"over {_DEEPEST} brackets deep"
        raise M3Error(f"{excerpt(text)} is {what}: give less, or a yaml file in --config-dir")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
    except (ValueError, RecursionError):  # a number of over 4,300 digits; brackets without end
        reason = "a number is too long, or brackets are nested too deep"
    tail = "=" not in text and text.endswith("}")  # what an unquoted blank cut off
    use = ARGUMENTS if "chat_args" in text or tail else "write KEY=VALUE, as in ratio.alpha=0.5"
    if (
        "=" in text
        and use != ARGUMENTS
        and len(text) < 1000
        and "${" not in text
        and "while evaluating" not in reason
        and _parses(_unquoted_by_shell(text))
    ):
        use = f"a value with such characters is quoted: {shell_text(text)}"
    raise M3Error(f"{excerpt(text)} is not an override: {reason}; {use}")


def _parses(text: str) -> bool:
    try:
        OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):
        return False
    return True


def _depth(text: str) -> int:
    return max(itertools.accumulate((sign in "[{(") - (sign in "]})") for sign in text), default=0)


def excerpt(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:197] + "...")


def shell_text(override: str) -> str:
    """Return an override with its value (of family.experts each) in Hydra's quotes, as it is typed into a shell."""
    line = _unquoted_by_shell(override)
    key, _, value = line.partition("=")
    return shlex.quote(line) if re.search(r'["$`\\!]', line) else f'{key}="{value}"'


def _unquoted_by_shell(override: str) -> str:
    key, _, value = override.partition("=")
    if key == "family.experts" and value.startswith("[") and value.endswith("]"):
        parts = [part.strip() for part in re.findall(r"""'[^']*'|"[^"']*"|[^,]+""", value[1:-1])]
        parts = [part[1:-1] if re.fullmatch(r'"[^"\']*"', part) else part for part in parts]
        return f"{key}=[{','.join(map(_in_quotes, parts))}]"
    return f"{key}={_in_quotes(value)}"


def _in_quotes(text: str) -> str:
    return text if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else quoted(text)


def raw_path(text: str, what: str) -> str:
    """Return the path of a setting that Hydra does not read: as it is, or in the quotes that Hydra needs elsewhere.

    Raises:
        M3Error: it is empty, or no path.
    """
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return expanded(str(parse(f"{what}={text}").value()) if is_quoted else text, what)


def refuse(overrides: Sequence[Override], config_dirs: Sequence[Path]) -> None:
    """Refuse overrides that m3 does not take, that choose nothing, or whose path Hydra reads as something else.

    Raises:
        M3Error: the first of them.
    """
    for override in overrides:
        _refuse_hydra(override)
        _refuse_form(override)
        _refuse_no_choice(override, config_dirs)
        if override.value() == {} and not override.key_or_group.endswith("chat_args"):
            raise M3Error(f"{override.input_line} sets nothing: give it a KEY: VALUE, or leave it out")
    _refuse_no_paths(overrides)


def _refuse_hydra(override: Override) -> None:
    key = override.key_or_group
    if key in ("hydra/launcher", "hydra/sweeper"):
        kind = key.removeprefix("hydra/")
        use = "launcher=local workers=N" if kind == "launcher" else "-m KEY=A,B or sweeps=NAME"
        raise M3Error(f"{override.input_line}: m3 plans a sweep as a whole and has its own {kind}; use {use}")
    if re.match(r"hydra\b", key):
        use = "use --config-dir DIR" if key == "hydra.searchpath" else "leave it out; out=DIR and store=DIR say where"
        raise M3Error(f"{override.input_line}: m3 composes by itself, hydra.* has no effect: {use}")


_INSTEAD = {"tracker": "tracker=none", "sparsify": "sparsify=none", "evaluator": "evaluator=[A,B] with those wanted"}


def _refuse_form(override: Override) -> None:
    """Refuse what is no KEY=VALUE: a deletion, a package, a name that none can be."""
    key, line = override.key_or_group, override.input_line
    if not re.match(r"[A-Za-z]", key):
        raise M3Error(f"{line}: {key or 'nothing'} is not the name of a key; write KEY=VALUE, as in limit=10")
    if override.type is OverrideType.DEL:
        use = _INSTEAD.get(key.partition(".")[0], f"{key}=VALUE")
        raise M3Error(f"{line}: nothing can be deleted: leave it out, or give another value, as {use}")
    if override.package is not None:
        raise M3Error(f"{line}: m3 knows no packages (@): write {key}=VALUE")
    if override.type is not OverrideType.CHANGE:
        raise M3Error(f"{line}: a request has one {key}: write {key}={override.get_value_element_as_str()}")


def _refuse_no_choice(override: Override, config_dirs: Sequence[Path]) -> None:
    """Refuse the value of a group that is none of its choices."""
    key, line = override.key_or_group, override.input_line
    group, _, rest = key.partition(".")
    choices = names(group, config_dirs)
    if rest == "name" and choices:
        raise M3Error(f"{line}: the name of a choice is not changed; choose with {group}=NAME")
    if rest or not choices or key == "sweeps" or override.is_sweep_override():
        return
    value, allowed = override.value(), f"allowed: {', '.join(choices)}"
    if key == "evaluator":
        allowed += ", at least one, as evaluator=[A,B]"
    several = value if key == "evaluator" and isinstance(value, list) else [value]
    if not several:
        raise M3Error(f"{line} is no choice; {allowed}")
    for one in several:
        if not isinstance(one, str) or "$" in one:
            raise M3Error(f"{line} is no choice; {allowed}")
        if one == "":
            raise M3Error(f"{line} is empty; {allowed}")
        if one not in choices:
            raise M3Error(f"{key}={one} does not exist; {allowed}{of_choice(key, one, config_dirs)}")


def replaced(overrides: Sequence[Override]) -> list[str]:
    """Name the overrides that a later one of the same key takes the place of: the last one counts.

    Raises:
        M3Error: a sweep is one of them, which is more than a value.
    """
    last = {override.key_or_group: override.input_line for override in overrides}
    lines = dict.fromkeys((one.key_or_group, one.input_line) for one in overrides)
    given_twice = [(key, line) for key, line in lines if line != last[key]]
    for key, line in given_twice:
        if key == "sweeps":
            raise M3Error(f"{line}, {last[key]}: one sweep at a time (m3 report takes several, with commas between)")
    return [f"{line} does not count: {last[key]} comes after it" for key, line in given_twice]


def is_path(override: Override) -> bool:
    group, _, rest = override.key_or_group.partition(".")
    named = override.key_or_group.startswith("family.experts.")
    return (
        override.key_or_group in _PATHS or named or (group == "evaluator" and rest.partition(".")[2] in PATH_SETTINGS)
    )


def _refuse_no_paths(overrides: Iterable[Override]) -> None:
    """Refuse a path that Hydra reads as a number or as null: a folder may be named 1e-4, and then needs quotes."""
    for override in overrides:
        if not is_path(override) or override.is_sweep_override():
            continue
        value, line = override.value(), override.input_line or ""
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str) and not part.strip():
                raise M3Error(f"{line}: an empty name: give a path, or leave {override.key_or_group} out")
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        several = override.key_or_group == "family.experts" and (isinstance(value, dict) or texts)
        if (
            not isinstance(value, str | None)
            and not several
            and (isinstance(value, list | dict) or str(value) != line.partition("=")[2].strip())
        ):
            raise M3Error(f"{line}: a name that looks like a number or a list is quoted: {shell_text(line)}")
        if isinstance(value, dict) and not all(isinstance(part, str) for part in value.values()):
            raise M3Error(f"{line}: each expert is a name: write 'family.experts={{NAME: A, OTHER: B}}'")
