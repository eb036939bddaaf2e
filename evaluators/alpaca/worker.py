"""One judging, in a process of its own: the alpaca-eval package's prompts, parsing and preferences, our transport.

`python -m evaluators.alpaca.worker` reads a job (one line of JSON, see `judges.verdicts`) from standard input
and writes lines of JSON: one an attempt, the verdicts last. It ends when its standard input does, and so with its
parent. Keys come from the environment.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from evaluators.alpaca.transport import Budget, Endpoint, Refused, Replies
from m3_exp.types import Json


def judge(job: dict[str, Any], told: Callable[[str], None]) -> Json:
    """Have every pair of a job judged; return the verdicts in its order."""
    import pandas as pd

    annotator = _annotator(job)
    (single,) = annotator.annotators.values()
    pairs = pd.DataFrame(job["pairs"], columns=["instruction", "output_1", "output_2"])
    unequal = pairs[pairs["output_1"] != pairs["output_2"]]  # equal outputs are a draw, which needs no judge
    # The two steps by which the package itself comes to its prompts, so that each prompt's pair is known.
    shown = single._preprocess(unequal) if len(unequal) else unequal
    prompts, shown = single._make_prompts(shown)
    prompt_of = dict(zip(shown.index, prompts, strict=True))
    replies = _replies(_endpoint(job, told), prompts, _parameters(single.completions_kwargs), job["workers"])
    preferences = _preferences(annotator, single, pairs, prompt_of, replies)
    swapped = dict(shown.get("is_switched_outputs", pd.Series(dtype=bool)))
    return {
        "verdicts": [
            _verdict(preferences.get(tuple(pair)), replies.get(prompt_of.get(i, "")), bool(swapped.get(i, False)))
            for i, pair in enumerate(job["pairs"])
        ]
    }


def _endpoint(job: dict[str, Any], told: Callable[[str], None]) -> Endpoint:
    return Endpoint(
        job["endpoint"],
        os.environ.get(job["key_variable"], ""),
        timeout=job["timeout"],
        retries=job["retries"],
        backoff=job["backoff"],
        budget=Budget(job["price"], job["max_cost"]),
        replies=Replies(Path(job["cache"])),
        told=told,
        offline=job["offline"],
    )


def _replies(endpoint: Endpoint, prompts: Sequence[str], parameters: Json, workers: int) -> dict[str, Json | str]:
    """Return the reply to each prompt, or why there is none."""
    from alpaca_eval.utils import prompt_to_chatml

    def ask(prompt: str) -> Json | str:
        try:
            messages = prompt_to_chatml(prompt.strip())
        except (AssertionError, IndexError):
            return "the package cannot make a prompt of it: an output holds the marks <|im_start|> or <|im_end|>"
        try:
            return endpoint.reply({**parameters, "messages": messages})
        except Refused as refused:
            return str(refused)

    distinct = list(dict.fromkeys(prompts))
    with ThreadPoolExecutor(workers) as threads:
        return dict(zip(distinct, threads.map(ask, distinct), strict=True))


def _annotator(job: dict[str, Any]) -> Any:
    """Return the package's annotator for a configuration, which wants to be a file in a folder of its name."""
    from alpaca_eval.annotators import PairwiseAnnotator

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / job["name"] / "configs.yaml"
        path.parent.mkdir()
        path.write_text(job["config"], encoding="utf-8")
        swap = {} if job["order_seed"] is not None else {"is_randomize_output_order": False}
        return PairwiseAnnotator(
            annotators_config=path, base_dir=folder, caching_path=None, seed=job["order_seed"] or 0, **swap
        )


def _parameters(completions: Mapping[str, Any]) -> Json:
    """Return a request's parameters as the package's decoder fills them in."""
    given = dict(completions)
    model = given.pop("model_name")
    return {"model": model, "top_p": 1.0, "temperature": 0.7, "max_tokens": 2048, **given}


def _text(choice: dict[str, Any]) -> str | None:
    """Return what the package takes as a reply's text: the arguments of a call where there is one."""
    message = choice["message"]
    if message.get("tool_calls"):
        return str(message["tool_calls"][0]["function"]["arguments"])
    if message.get("function_call"):
        return str(message["function_call"]["arguments"])
    content = message.get("content")
    return " " if content == "" else content


def _preferences(
    annotator: Any, single: Any, pairs: Any, prompt_of: Mapping[int, str], replies: Mapping[str, dict[str, Any] | str]
) -> dict[tuple[str, str, str], float]:
    """Let the package parse the replies, undo the swaps and settle the draws; what is no preference is left out."""
    answered = {prompt: reply for prompt, reply in replies.items() if isinstance(reply, dict)}

    def completions(prompts: Sequence[str], **_: Any) -> Json:
        choices = [answered[prompt]["choice"] for prompt in prompts]
        texts = [_text(choice) for choice in choices]
        every = [{**choice, "text": text} for choice, text in zip(choices, texts, strict=True)]
        return {"completions": texts, "completions_all": every}

    single.fn_completions = completions
    known = [i for i in pairs.index if i not in prompt_of or prompt_of[i] in answered]
    if not known:
        return {}
    rows = annotator(pairs.loc[known].reset_index(drop=True), chunksize=None)
    return {
        (row["instruction"], row["output_1"], row["output_2"]): float(row["preference"])
        for row in rows
        if row["preference"] is not None and 1 <= row["preference"] <= 2
    }


def _verdict(preference: float | None, reply: dict[str, Any] | str | None, swapped: bool) -> Json:
    verdict: Json = {"preference": preference, "swapped": swapped}
    if not isinstance(reply, dict):
        return {**verdict, "reason": reply}
    text = _text(reply["choice"])
    verdict |= {"text": text, "model": reply["model"]}
    if preference is None:
        said = json.dumps((text or "")[:80], ensure_ascii=False)
        verdict |= {"unparsable": True, "reason": f"the judge's answer cannot be parsed: {said}"}
    return verdict


def length_controlled(job: dict[str, Any]) -> Json:
    """Return the package's length-controlled win rate, from preferences and lengths, with a local df_gamed.csv."""
    import pandas as pd
    from alpaca_eval.metrics import glm_winrate

    glm_winrate.hf_hub_download = lambda **_: job["df_gamed"]
    rows = pd.DataFrame(
        {
            "preference": job["preferences"],
            "output_1": ["x" * n for n in job["reference_lengths"]],
            "output_2": ["x" * n for n in job["lengths"]],
            "generator_1": "reference",
            "generator_2": "model",
            "annotator": "judge",
        }
    )
    figures = glm_winrate.get_length_controlled_winrate(
        rows, save_weights_dir=None, is_add_glm_preference_inplace=False, is_warn_extreme_changes=False
    )
    return {key: float(figures[key]) for key in ("length_controlled_winrate", "lc_standard_error")}


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is not part of the answer
    lock = threading.Lock()
    job = _job()
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def told(event: str) -> None:
        with lock:
            _write(out, {"event": event})

    outcome = length_controlled(job) if job["task"] == "length_controlled" else judge(job, told)
    with lock:
        _write(out, {"event": "done", **outcome})


def _write(out: TextIO, line: Json) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def _job() -> dict[str, Any]:
    """Read the one line of standard input, without Python's buffer: its lock would not survive the end."""
    received = b""
    while not received.endswith(b"\n") and (part := os.read(0, 1 << 20)):
        received += part
    job: dict[str, Any] = json.loads(received)
    return job


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    main()
