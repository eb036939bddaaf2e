"""Draws of lambda -> their expectation, where a response curve was evaluated: figures show what tables show."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from m3_exp.reporting.comparisons import values
from m3_exp.reporting.curves.evaluated import LINE, Response
from m3_exp.types import Json


def in_place_of_draws(frame: pd.DataFrame, responses: Sequence[Response]) -> pd.DataFrame:
    """Return a frame in which the M3 lines that have a curve are one line an alpha: its expectation, item by item."""
    known = {(*response.line, response.benchmark): response for response in responses if response.gridded}
    rows: list[Json] = []
    done: set[tuple[Any, ...]] = set()
    for row in frame.to_dict("records"):
        line = {str(key): value for key, value in row.items()}
        key = tuple(line[column] for column in (*LINE, "benchmark"))
        response = known.get(key) if line["ratio"] == "mixup" else None
        if response is None:
            rows.append(line)
        elif (*key, line["alpha"]) not in done:
            done.add((*key, line["alpha"]))
            rows.append(line | _expectation(response, float(line["alpha"])))
    return pd.DataFrame(rows, columns=frame.columns)


def _expectation(response: Response, alpha: float) -> Json:
    shown = values.expected(response, alpha)
    items = values.expected_items(response, alpha)
    return {
        "score": shown.score, "low": shown.low, "high": shown.high, "n": shown.n, "n_unscored": shown.n_unscored,
        "state": "done", "values": {(item, 0): value for item, value in items.items()}, "failure": None,
        "expected": response,
        "draw": None, "lam": None, "point": (), "mixture": "", "mask_seed": None,
        "weights": f"E[alpha={alpha:g}]",
    }  # fmt: skip
