"""The first words of what `m3` prints of a request, and the lines that evaluate what they lack."""

import pandas as pd

from m3_exp.command_line import CommandLine, names, word
from m3_exp.reporting.choices import summary
from m3_exp.reporting.data.dataframe import rehearsed
from m3_exp.views.lookup import Lookup


def first_words(looked: Lookup, frame: pd.DataFrame) -> list[str]:
    """Return the sentences that answer what a reader asks first, from a frame of a request."""
    asked = looked.request.asked
    curves = asked.on_sweep("lambda_response").line("run")
    if looked.parents and all(len(experts) > 2 for experts in looked.parents.values()):
        curves = "lambda is the share of one expert of two: ask for a pair"
    run = summary.Lines(asked.line("run"), _alone(looked, asked), curves)
    return [*rehearsed(frame), *summary.first_words(frame, looked.parents, run)]


def _alone(looked: Lookup, asked: CommandLine) -> str:
    """Return the line that evaluates the experts of a request by themselves, on the benchmarks of its merges."""
    merged = [config for config in looked.request.configs if len(config.experts) > 1]
    own = ("sweeps", "pair", "method", "ratio", "sparsify", "repeat")
    others = [text for text in asked.overrides if text.partition("=")[0].partition(".")[0] not in own]
    known = names("pair", asked.config_dirs)
    experts = dict.fromkeys(name for config in merged for name in config.experts)
    if not experts.keys() <= {*known} or any(config.family == "local" for config in merged):
        lists = dict.fromkeys(f"[{word(name)}]" for config in merged for name in (config.skills or config.experts))
        alone = f"pair.experts={','.join(lists)}"
    else:
        alone = f"pair={','.join(experts)}"
    benchmarks = dict.fromkeys(one.name for config in merged for one in config.evaluators)
    on = [] if asked.values("evaluator") else [f"evaluator=[{','.join(benchmarks)}]"]
    words = (alone, *on, *others)
    return CommandLine(words, multirun=True, config_dirs=asked.config_dirs).line("run")
