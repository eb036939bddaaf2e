"""Messages -> token ids by a tokenizer's own chat template, in a process of its own.

A template comes with a model and is not trusted: transformers renders it in jinja's sandbox, which keeps it from the
machine but not from looping for ever or eating memory. So it runs in a child with limits of CPU time and memory. What
asks for today's date gets one that never changes, since a prompt must be the same tomorrow.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from m3_exp.merging.tokenizer import open_tokenizer
from m3_exp.types import M3Error

TODAY = datetime(2024, 7, 26)  # the date in Meta's own templates where no clock is at hand
_CPU_SECONDS = 300
_MEMORY = 16 << 30  # bytes of address space: transformers alone maps some


def render(
    folder: Path, messages: Sequence[str], arguments: Mapping[str, object] | None = None, *, seconds: float = 600.0
) -> list[tuple[int, ...]]:
    """Return the token ids of each message as a chat of one turn, up to where the model's answer begins.

    `arguments` are the template's own, such as enable_thinking; plain JSON values.

    Raises:
        M3Error: the tokenizer has no template or it does not read an argument, or it failed or took too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "m3_exp.chat", str(folder)],
            input=json.dumps([list(messages), dict(arguments or {})]).encode(),
            capture_output=True,
            timeout=seconds,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise M3Error(
            f"chat_template=true: the template of {folder} took more than {seconds:g} s; use chat_template=false"
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise M3Error(f"chat_template=true: {said[-1][:300]}; use chat_template=false, or another tokenizer")
    return [tuple(ids) for ids in json.loads(done.stdout)]


def _environment() -> dict[str, str]:
    """Return what the child may know: no keys, no tokens."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    return {**{k: v for k, v in os.environ.items() if k in kept}, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}


class _FixedClock(datetime):
    @classmethod
    def now(cls, tz: object = None) -> "datetime":  # type: ignore[override]
        return TODAY


def _unread(template: str, arguments: Mapping[str, object]) -> str:
    """Say which argument a template does not read, and what it reads; nothing where it reads all."""
    from jinja2 import meta
    from transformers.utils import chat_template_utils

    environment = chat_template_utils._compile_jinja_template(template).environment
    known = meta.find_undeclared_variables(environment.parse(template)) - {"messages", "add_generation_prompt"}
    unread = sorted(arguments.keys() - known)
    return f"reads no {unread[0]!r} (chat_args); it reads {', '.join(sorted(known)) or 'none'}" if unread else ""


def _main(folder: str) -> int:
    sys.modules["torch"] = None  # type: ignore[assignment]  # else transformers imports its models, for 5 s
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = _FixedClock  # type: ignore[attr-defined]
    try:
        tokenizer = open_tokenizer(Path(folder))
    except M3Error as error:
        print(error, file=sys.stderr)
        return 1
    messages, arguments = json.load(sys.stdin)
    if not tokenizer.chat_template:
        print(f"the tokenizer in {folder} has no chat template", file=sys.stderr)
        return 1
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    if wrong := _unread(tokenizer.get_chat_template(), arguments):
        print(f"the template of {folder} {wrong}", file=sys.stderr)
        return 1
    turns = [[{"role": "user", "content": message}] for message in messages]
    rendered = [
        tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False, **arguments) for turn in turns
    ]
    json.dump([tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
