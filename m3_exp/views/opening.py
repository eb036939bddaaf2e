"""The first words of what `m3` prints of a request, and the lines that evaluate what they lack."""

import pandas as pd

from m3_exp.command_line import CommandLine
from m3_exp.reporting.choices import summary
from m3_exp.views.lookup import Lookup


def first_words(looked: Lookup, frame: pd.DataFrame, *, draws: bool = False) -> list[str]:
    """Return the sentences that answer what a reader asks first, from a frame of a request.

    Where the request names no single models, those that the store has are taken. `draws`: the frame holds those of
    other runs.
    """
    if not bool((frame["method"] == "single").any()):
        frame = looked.frame(draws=draws, alone=True)
    asked = looked.request.asked
    run = summary.Lines(asked.line("run"), _alone(looked, asked), asked.on_sweep("lambda_response").line("run"))
    return summary.first_words(frame, looked.parents, run)


def _alone(looked: Lookup, asked: CommandLine) -> str:
    """Return the line that evaluates the experts of a request by themselves, on the benchmarks of its merges."""
    merged = [config for config in looked.request.configs if len(config.experts) > 1]
    if any(config.family == "local" for config in merged):
        return "m3 run with one of family.experts at a time"
    own = ("sweeps", "pair", "method", "ratio", "sparsify", "repeat")
    others = [text for text in asked.overrides if text.partition("=")[0].partition(".")[0] not in own]
    experts = dict.fromkeys(name for config in merged for name in config.experts)
    benchmarks = dict.fromkeys(one.name for config in merged for one in config.evaluators)
    on = [] if asked.values("evaluator") else [f"evaluator=[{','.join(benchmarks)}]"]
    words = (f"pair={','.join(experts)}", *on, *others)
    return CommandLine(words, multirun=True, config_dirs=asked.config_dirs).line("run")
