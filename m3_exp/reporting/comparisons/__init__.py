"""The score of one cell of a table with its interval, and which cells differ significantly.

values.py      a row's cells -> mean over draws, or expectation on a curve, with its interval
contrasts.py   pairs of cells -> difference, p-value adjusted in its family, sign
drops.py       accuracy without and under attack -> PDR and differences of it
points.py      frame -> points of a chart: a score, a gain or a drop with its interval
expected.py    draws in a frame -> their expectation, where there is a curve
"""
