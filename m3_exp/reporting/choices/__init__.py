"""Choosing one of several candidates (alphas, lambdas, draws, parameters), and what the chosen one is worth.

candidates.py   frame -> what there is to choose from, aligned by item (chosen and scored by `stats/choosing.py`)
protocols.py    random against tuned at equal cost, on curves
relative.py     curves put together: mean and minimum relative to the better parent
ways.py         all of it for a pair and method
summary.py      the first words: does a merge beat the better single model, random against tuned, which alphas
advice.py       what `m3 response`, the page and W&B say of a study
"""
