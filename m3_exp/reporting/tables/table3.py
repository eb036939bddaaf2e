"""Table 3, the search for hyper-parameters: what it finds here, beside what the paper found (its Table 4).

The candidates are the rows of sweeps/table3_search.yaml: scaling of task arithmetic, scaling and retain of TIES, both
without M3. What is found is compared with the defaults, scaling 1 and retain 0.7, paired by item.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from m3_exp.reporting.data.params import searched
from m3_exp.reporting.table import Table
from m3_exp.reporting.tables import selection
from m3_exp.stats.choosing import How


def build(
    frame: pd.DataFrame,
    dev_frame: pd.DataFrame | None,
    how: How,
    parents: Mapping[str, Sequence[str]],
    *,
    command: str = "m3 run sweeps=table3_search",
    seed: int = 0,
) -> Table:
    """Return the table of the search: for each pair and method what was found, and whether it beats the default.

    Raises:
        M3Error: fewer than two candidates have results, or no development results where `how="dev"`.
    """
    plain = frame[(frame["method"] == "single") | (frame["ratio"] == "plain")]
    return selection.build("table3", plain, dev_frame, how, parents, command=command, beside=searched(), seed=seed)
