"""The judges of AlpacaEval that are language models: which, at what price, and the process that asks them.

A judge is an annotator configuration of the alpaca-eval package (its prompt, parameters and parser), or `local`: the
prompt and parser of `chatgpt_fn` for a model behind any OpenAI-compatible server, held to its two answers by
structured output. How it is asked, what is kept and how failures are met is in `transport`.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from m3_exp.reading.records import say
from m3_exp.reading.yaml_files import shipped
from m3_exp.scoring.cache import folder
from m3_exp.scoring.evaluator import Cost
from m3_exp.types import Json, M3Error

OPENAI = "https://api.openai.com/v1"
QUIET = 300.0 + 120.0  # seconds without a word, beyond one time-out, after which the judging process is ended

# Dollars per million tokens read and written. Models still offered: as quoted from platform.openai.com/docs/pricing by
# guides of April to June 2026; retired ones: their last list price (gpt-4-1106-preview: as in AlpacaEval's own code).
PRICES: Mapping[str, tuple[float, float]] = {
    "gpt-3.5-turbo": (0.5, 1.5),
    "gpt-3.5-turbo-0125": (0.5, 1.5),
    "gpt-3.5-turbo-1106": (1.0, 2.0),
    "gpt-3.5-turbo-16k-0613": (3.0, 4.0),
    "gpt-4": (30.0, 60.0),
    "gpt-4-0314": (30.0, 60.0),
    "gpt-4-0613": (30.0, 60.0),
    "gpt-4-1106-preview": (10.0, 30.0),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
    "gpt-4.1-nano": (0.1, 0.4),
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4o-mini-2024-07-18": (0.15, 0.6),
}
BYTES_PER_TOKEN = 4.83  # of 801 published prompts of weighted_alpaca_eval_gpt4_turbo with their token counts


@dataclass(frozen=True)
class Pair:
    """What a judge compares: `reference` is output 1, the model's `answer` output 2."""

    instruction: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Verdict:
    """A preference from 1 (the reference) to 2 (the answer), or None with the reason. `swapped`: answer shown first."""

    preference: float | None
    swapped: bool = False
    text: str | None = None
    model: str | None = None
    unparsable: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Asking:
    """How a judge is asked: nothing here changes what it is asked."""

    retries: int
    backoff: float
    timeout: float
    workers: int
    max_cost: float | None
    price: tuple[float, float] | None


@dataclass(frozen=True)
class JudgeModel:
    """A judge with its configuration, as the package reads it, and its address ("" where none is known)."""

    name: str
    config: Mapping[str, Any]
    endpoint: str
    own_endpoint: bool  # given by the user, not the judge's own

    @property
    def model(self) -> str:
        return str(self.config["completions_kwargs"]["model_name"])

    @property
    def key_variable(self) -> str:
        """A key for OpenAI never goes to another address."""
        return "M3_JUDGE_KEY" if self.own_endpoint else "OPENAI_API_KEY"

    @property
    def loopback(self) -> bool:
        return urlsplit(self.endpoint).hostname in ("localhost", "127.0.0.1", "::1")

    def missing(self) -> str | None:
        """Return what keeps the judge from being asked at all, or None."""
        if not self.endpoint:
            return (
                "judge=local has no address: set M3_JUDGE_ENDPOINT=http://HOST:PORT/v1 (or endpoint=) and run the same"
                " command again"
            )
        if not self.own_endpoint and not os.environ.get(self.key_variable):
            return (
                f"judge={self.name} needs an API key: set {self.key_variable} and run the same command again"
                " (or name another server by endpoint=)"
            )
        return None


# --------------------------------------------------------------------------------------------------- configurations


@cache
def _package() -> Path:
    """Return the package's folder of annotator configurations, without importing it."""
    spec = find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise M3Error("the package alpaca-eval is not installed: pip install 'alpaca-eval>=0.6.6,<0.7'")
    return Path(next(iter(spec.submodule_search_locations))) / "evaluators_configs"


@cache
def packaged() -> Mapping[str, Mapping[str, Any]]:
    """Return the package's annotators that ask an OpenAI chat model one question an item, by name.

    Those with a server of their own in the configuration are left out: `local` is for servers.
    """
    annotators = {}
    for path in sorted(_package().glob("*/configs.yaml")):
        config = shipped(path).get(path.parent.name, {})
        one_by_one = config.get("fn_completions") == "openai_completions" and config.get("batch_size") == 1
        if one_by_one and not _OWN_SERVER & config["completions_kwargs"].keys() and "<|im_start|>" in template(config):
            annotators[path.parent.name] = config
    return annotators


_OWN_SERVER = {"client_kwargs", "requires_chatml", "is_chat", "price_per_token"}


def template(config: Mapping[str, Any]) -> str:
    """Return the text of an annotator's prompt template."""
    text: str = (_package() / config["prompt_template"]).read_text(encoding="utf-8")
    return text


def judge_model(
    name: str, model: str, endpoint: str, max_tokens: int | None, *, structured: bool, known: Sequence[str] = ()
) -> JudgeModel:
    """Return a judge by name, with the settings that replace its own.

    Raises:
        M3Error: there is no such judge, it needs a model, or the endpoint is not a plain address.
    """
    if name != "local" and name not in packaged():
        allowed = ", ".join([*known, "local", *packaged()])
        raise M3Error(f"alpaca_eval: judge={name} is not known, allowed are {allowed}")
    if name == "local" and not model:
        raise M3Error("alpaca_eval: judge=local needs judge_model=NAME, the model as its server calls it")
    own = endpoint or (os.environ.get("M3_JUDGE_ENDPOINT", "") if name == "local" else "")
    address = (own or ("" if name == "local" else os.environ.get("OPENAI_BASE_URL") or OPENAI)).rstrip("/")
    _check_address(address)
    config = dict(_local(structured=structured) if name == "local" else packaged()[name])
    completions = dict(config["completions_kwargs"])
    if model:
        completions["model_name"] = model
    if max_tokens is not None:
        completions["max_tokens"] = max_tokens
    config["completions_kwargs"] = completions
    config["prompt_template"] = str(_package() / config["prompt_template"])
    return JudgeModel(name, config, address, bool(own))


def _local(*, structured: bool) -> Mapping[str, Any]:
    """The question of chatgpt_fn without its tool call, which small models cannot make."""
    config = packaged()["chatgpt_fn"]
    completions: Json = {"model_name": "", "max_tokens": 50, "temperature": 0}
    if structured:
        completions["extra_body"] = {"structured_outputs": {"choice": ["Output (a)", "Output (b)"]}}
    return {**config, "completions_kwargs": completions}


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    bare = not (parts.query or parts.fragment or "@" in parts.netloc)
    if address and not (parts.scheme in ("http", "https") and parts.hostname and bare):
        shown = parts._replace(netloc=parts.hostname or "", query="", fragment="").geturl()
        raise M3Error(
            f"alpaca_eval: endpoint={shown} is not an address such as http://127.0.0.1:8000/v1 (keys come from the"
            " environment, never from an address)"
        )


# ------------------------------------------------------------------------------------------------------------- cost


def price(judge: JudgeModel, price_in: float | None, price_out: float | None) -> tuple[float, float] | None:
    """Return the dollars per million tokens, read and written: the given ones, nothing on this machine, or a list's."""
    if price_in is not None:
        return price_in, price_out or 0.0
    if judge.loopback:
        return 0.0, 0.0
    return None if judge.own_endpoint else PRICES.get(judge.model)


def forecast(judge: JudgeModel, pairs: Sequence[Pair], prices: tuple[float, float] | None) -> Cost:
    """Return what judging would take if the answers were as long as those of `pairs`, with nothing kept."""
    frame = len(template(judge.config)) + len(json.dumps(judge.config["completions_kwargs"].get("tools", "")))
    size = sum(frame + len((p.instruction + p.reference + p.answer).encode("utf-8", "replace")) for p in pairs)
    read = round(size / BYTES_PER_TOKEN)
    written = len(pairs) * int(judge.config["completions_kwargs"]["max_tokens"])
    dollars = None if prices is None else round((read * prices[0] + written * prices[1]) / 1e6, 4)
    priced = "price not known, set price_in and price_out" if prices is None else "{:g}/{:g} $ per 1M".format(*prices)
    return Cost(
        calls=len(pairs),
        prompt_tokens=read,
        completion_tokens=written,
        dollars=dollars,
        basis=f"{judge.name} with {judge.model}, {priced}; as if answers were as long as references and none judged",
    )


# ---------------------------------------------------------------------------------------------------------- judging


def verdicts(judge: JudgeModel, pairs: Sequence[Pair], order_seed: int | None, how: Asking) -> list[Verdict]:
    """Have pairs judged, in order: kept replies first, then the judge is asked. What fails carries its reason.

    Where the judging process dies, a second one, which may not ask, turns what was kept until then into verdicts.
    """
    distinct = list(dict.fromkeys(pairs))
    job: Json = {
        "task": "judge",
        # as YAML: a parser's table has whole numbers for keys, which JSON would make texts
        **{"name": judge.name, "config": yaml.safe_dump({judge.name: dict(judge.config)}), "order_seed": order_seed},
        "pairs": [[pair.instruction, pair.reference, pair.answer] for pair in distinct],
        **{"endpoint": judge.endpoint, "key_variable": judge.key_variable, "cache": str(folder("judgments"))},
        **{"retries": how.retries, "backoff": how.backoff, "timeout": how.timeout, "workers": how.workers},
        **{"price": how.price, "max_cost": how.max_cost, "offline": judge.missing()},
    }
    if how.max_cost is not None and how.price is None:
        job["offline"] = f"max_cost is set but the price of {judge.model} is not known: set price_in and price_out too"
    try:
        reply = ask_worker(job, how.timeout)
    except M3Error as error:
        try:
            reply = ask_worker({**job, "offline": f"{error}; run the same command again"}, how.timeout)
        except M3Error:
            reply = {"verdicts": [{"preference": None, "reason": str(error)}] * len(distinct)}
    by_pair = {pair: Verdict(**verdict) for pair, verdict in zip(distinct, reply["verdicts"], strict=True)}
    return [by_pair[pair] for pair in pairs]


def ask_worker(job: Json, timeout: float) -> dict[str, Any]:
    """Run one job in a process of its own, which is ended when it is silent for too long, and with us.

    Raises:
        M3Error: it died or was ended.
    """
    with tempfile.TemporaryFile() as noise, _worker(noise) as process:
        watch = _Watch(process, timeout + QUIET)
        answer: Json | None = None
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                watch.heard()
                event = json.loads(line)
                if event.pop("event") == "done":
                    answer = event
        except (BrokenPipeError, ValueError):
            pass  # it is dying: its end is told below
        finally:
            watch.stop()
        code = process.wait()
        noise.seek(0)
        text = noise.read().decode("utf-8", "replace")
        for said in text.split("\n"):
            if said.startswith("m3: "):
                say(said.removeprefix("m3: "))
        if answer is None:
            raise M3Error(f"the judging process {_end(code, text, silent=watch.barked)}")
        return answer


@contextlib.contextmanager
def _worker(noise: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start the judging process; it does not outlive the block, nor us (it ends with its standard input)."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "evaluators.alpaca.worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=noise, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


class _Watch:
    """Kills a process that says nothing for `patience` seconds."""

    def __init__(self, process: subprocess.Popen[bytes], patience: float) -> None:
        self.barked = False
        self._process, self._patience = process, patience
        self.heard()

    def heard(self) -> None:
        self.stop()
        self._timer = threading.Timer(self._patience, self._bark)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if hasattr(self, "_timer"):
            self._timer.cancel()

    def _bark(self) -> None:
        self.barked = True
        self._process.kill()


def _end(code: int, text: str, *, silent: bool) -> str:
    if silent:
        return "was silent for too long and was ended"
    if code < 0:
        return f"was killed (signal {-code})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1][:200] if lines else "it said nothing"
    for variable in ("OPENAI_API_KEY", "M3_JUDGE_KEY"):
        last = last.replace(os.environ.get(variable) or "\0", "***")
    return f"failed (exit code {code}: {last})"
