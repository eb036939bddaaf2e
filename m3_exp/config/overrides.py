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
from m3_exp.config.choices import alternatives, parameters, top_keys
from m3_exp.reading.paths import expanded
from m3_exp.types import M3Error

PATH_SETTINGS = ("items", "annotations", "prompts", "masked_lm")  # of evaluators
_PATHS = ("out", "store", "items", "engine.answers", "family.base", "family.experts", "family.masked_lm", "tracker.dir")
ARGUMENTS = "chat_args is one quoted word: 'chat_args={enable_thinking: false}'"
_LONGEST = 20_000  # characters of an override
_DEEPEST = 50  # brackets open in one


@functools.lru_cache(maxsize=4096)  # the products of a sweep share most of them
def parse(text: str) -> Override:
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
    """Refuse overrides that m3 does not take, that name no key, or whose path Hydra reads as something else.

    Raises:
        M3Error: the first of them.
    """
    _refuse_hydra(overrides)
    _refuse_unknown(overrides, config_dirs)
    _refuse_no_paths(overrides)


def _refuse_hydra(overrides: Iterable[Override]) -> None:
    for override in overrides:
        key = override.key_or_group
        if key in ("hydra/launcher", "hydra/sweeper"):
            kind = key.removeprefix("hydra/")
            use = "launcher=local workers=N" if kind == "launcher" else "-m KEY=A,B or sweeps=NAME"
            raise M3Error(f"{override.input_line}: m3 plans a sweep as a whole and has its own {kind}; use {use}")
        if re.match(r"hydra\b", key):
            use = (
                "use --config-dir DIR" if key == "hydra.searchpath" else "leave it out; out=DIR and store=DIR say where"
            )
            raise M3Error(f"{override.input_line}: m3 composes by itself, hydra.* has no effect: {use}")


def _refuse_unknown(overrides: Iterable[Override], config_dirs: Sequence[Path]) -> None:
    """Refuse a key that Hydra would add, delete or leave out silently."""
    for override in overrides:
        key, line = override.key_or_group, override.input_line
        if override.type is OverrideType.DEL:
            raise M3Error(f"{line}: nothing can be deleted: give it another value, as {key}=VALUE")
        if override.package is not None:
            raise M3Error(f"{line}: m3 knows no packages (@): write {key}=VALUE")
        if not re.match(r"[A-Za-z]", key):
            raise M3Error(f"{line}: {key or 'nothing'} is not the name of a key; write KEY=VALUE, as in limit=10")
        if key == "tuned" and override.value() not in names("tuned", config_dirs):
            raise M3Error(f"{line} does not exist; allowed: {', '.join(names('tuned', config_dirs))}")
        group, _, rest = key.partition(".")
        if rest == "name" and names(group, config_dirs):
            raise M3Error(f"{line}: the name of a choice is not changed; choose with {group}=NAME")
        if "." not in key and (choices := names(key, config_dirs)):
            _refuse_no_choice(override, choices)
        if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) and not _is_known(key, config_dirs):
            use = ARGUMENTS if "chat_args." in key else alternatives(group, config_dirs)
            raise M3Error(f"{line}: {key} is not known; {use}")


def _refuse_no_choice(override: Override, choices: Sequence[str]) -> None:
    """Refuse the value of a group that is none of its choices."""
    key, line, allowed_here = override.key_or_group, override.input_line, ", ".join(choices)
    if override.type is not OverrideType.CHANGE:
        raise M3Error(f"{line}: a request has one {key}: write {key}={override.get_value_element_as_str()}")
    if override.is_sweep_override():
        return
    value, as_list = override.value(), ", at least one, as evaluator=[A,B]" if key == "evaluator" else ""
    if not (isinstance(value, str) or (key == "evaluator" and _is_texts(value))):
        raise M3Error(f"{line} is no choice; allowed: {allowed_here}{as_list}")
    if value == "":
        raise M3Error(f"{line} is empty; allowed: {allowed_here}{as_list}")
    if isinstance(value, str) and "$" not in value and value not in choices:
        raise M3Error(f"{line} does not exist; allowed: {allowed_here}")


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _is_known(key: str, config_dirs: Sequence[Path]) -> bool:
    """Tell whether a key that is added is one that something reads."""
    group, _, rest = key.partition(".")
    if not rest:
        return group in top_keys() or bool(names(group))
    if group == "evaluator":
        return rest.partition(".")[0] in names(group, config_dirs)
    return rest.partition(".")[0] in ("name", *parameters(group, config_dirs)) or group == "method"


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
        several = override.key_or_group == "family.experts" and (isinstance(value, dict) or _is_texts(value))
        if (
            not isinstance(value, str | None)
            and not several
            and value != []
            and str(value) != line.partition("=")[2].strip()
        ):
            raise M3Error(f"{line}: a name that looks like a number or a list is quoted: {shell_text(line)}")
        if isinstance(value, dict) and not all(isinstance(part, str) for part in value.values()):
            raise M3Error(f"{line}: each expert is a name: write 'family.experts={{NAME: A, OTHER: B}}'")
