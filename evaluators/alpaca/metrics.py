"""AlpacaEval's figures: win rate, standard error and counts from preferences, and the length-controlled win rate."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from evaluators.alpaca.judges import ask_worker
from m3_exp.stats.scored import of_scores
from m3_exp.types import Json, M3Error, Score

# sha256 of the lengths of the 805 AlpacaEval 2 reference outputs, as JSON: what length control is fitted against
OFFICIAL_LENGTHS = "b3c0a03dd0100d663554fcd42b805d9f2ed94ab4e994cdff85f7d01eca191244"


def preference(value: object) -> float | None:
    """Return a stored preference between 1 (the reference is better) and 2, or None where it is none.

    0 is an old way to write a draw (1.5). Anything else outside 1 to 2 counts for nothing, as in alpaca_eval.metrics.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = 1.5 if value == 0 else float(value)
    return number if 1 <= number <= 2 else None


def details(scores: Sequence[Score]) -> Json:
    """Return what AlpacaEval's leaderboards show of a set of judgments, but the win rate; errors and rates in percent.

    A value is a preference minus 1. `avg_length` is that of all answers, judged or not.
    """
    values = list(of_scores(scores).values.values())
    lengths = [score.notes["length"] for score in scores if "length" in score.notes]
    discrete = [0.5 if value == 0.5 else float(value > 0.5) for value in values]
    return {
        "standard_error": None if len(values) < 2 else 100.0 * _standard_error(values),
        "n_wins": sum(value > 0.5 for value in values),
        "n_wins_base": sum(value < 0.5 for value in values),
        "n_draws": sum(value == 0.5 for value in values),
        "n_unparsable": sum(bool(score.notes.get("unparsable")) for score in scores),
        "discrete_win_rate": 100.0 * math.fsum(discrete) / len(discrete) if discrete else None,
        "avg_length": int(sum(lengths) / len(lengths)) if lengths else None,
        **length_controlled(scores),
    }


def _standard_error(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def length_controlled(scores: Sequence[Score]) -> Json:
    """Return the length-controlled win rate and its error, or why there is none."""
    try:
        _check_official(scores)
        ordered = sorted(scores, key=lambda score: int(score.id))
        job: Json = {
            "task": "length_controlled",
            "df_gamed": str(_gamed()),
            "preferences": [None if score.value is None else score.value + 1.0 for score in ordered],
            "lengths": [score.notes["length"] for score in ordered],
            "reference_lengths": [score.notes["reference_length"] for score in ordered],
        }
        return ask_worker(job, 60.0)
    except M3Error as error:
        return {"length_controlled_winrate": None, "length_controlled_reason": str(error)}


def _check_official(scores: Sequence[Score]) -> None:
    """Raise M3Error where these are not the judgments that length control is defined for."""
    if [score.id for score in sorted(scores, key=lambda s: (len(s.id), s.id))] != [str(i) for i in range(805)]:
        raise M3Error("it is defined for one answer to each of the 805 official items only")
    lengths = {int(score.id): score.notes.get("reference_length") for score in scores}
    in_order = json.dumps([lengths[i] for i in range(805)])
    if hashlib.sha256(in_order.encode()).hexdigest() != OFFICIAL_LENGTHS:
        raise M3Error("it is defined against the AlpacaEval 2 reference outputs only")
    if all(score.value is None for score in scores):
        raise M3Error("nothing was judged")


def _gamed() -> Path:
    """Return the file of judgments of verbose and concise answers: from M3_DATA, or the hub's cache; never fetched.

    Raises:
        M3Error: it is in neither.
    """
    from huggingface_hub import try_to_load_from_cache

    data = os.environ.get("M3_DATA")
    if data and (path := Path(data).expanduser() / "alpaca_eval" / "df_gamed.csv").is_file():
        return path
    held = try_to_load_from_cache("tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset")
    if not isinstance(held, str):
        raise M3Error(
            "its file is not here: put df_gamed.csv of the hub's data set tatsu-lab/alpaca_eval at"
            " M3_DATA/alpaca_eval/df_gamed.csv"
        )
    return Path(held)
