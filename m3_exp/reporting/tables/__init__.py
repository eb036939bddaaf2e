"""Tables: rows from a frame, and how they are written.

paper.py, rows.py    method x pair x M3 x DARE: most tables of sweeps
adversarial.py       Tables 2, 5, 6: accuracy under attack
gains.py             Figure 4 as a table
table3.py            the search for hyper-parameters
selection.py         `--select`: the candidate that is chosen, and what it scores
noise.py             `--repeats`: the noise floor
variance.py          `--variance`: the uncertainty from items, draws, masks and nodes, each by itself
footers.py           the notes below every table
formats.py, latex.py  `Table` (../table.py) -> Markdown, CSV, LaTeX, HTML
text.py              the same for a terminal, as wide as its lines
"""
