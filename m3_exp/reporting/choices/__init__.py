"""Choosing one of several candidates (alphas, lambdas, draws, parameters), and what the chosen one is worth.

candidates.py   frame -> what there is to choose from, aligned by item (chosen and scored by `stats/choosing.py`)
protocols.py    random against tuned at equal cost, on curves
readable.py     what nothing is advised from: zeros that are no zeros
relative.py     curves put together: mean and minimum relative to the better parent
helping.py      does one more expert help: the best of ever more of them
winning.py      which mixtures of three experts are better than each of them alone
ways.py         all of it for a pair and method
superior.py     what each merge gains on the better single model
tuned.py        a random ratio less the best fixed one
summary.py      the first words: both of these in sentences, and which alphas
advice.py       what `m3 response`, the page and W&B say of a study
"""
