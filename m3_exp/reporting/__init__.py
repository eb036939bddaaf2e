"""What the store holds, as figures with intervals, in tables, pictures, a page and W&B:

    table.py      what a table is: columns, rows of typed cells, notes
    glossary.py   ten words that all of it uses
    data          store -> one tidy frame; the paper's numbers; what other runs left
    curves        frame -> response curves over lambda, E[score | alpha] of them, and how well they predict new draws
    comparisons   the score of a cell with its interval, and which cells differ significantly
    choices       ways of choosing alpha or lambda, and what each is worth (`m3 response`, `--select`)
    tables        rows, footnotes and formats; the paper's tables and ours
    figures       the paper's figures and ours
    wandb         what W&B is told, and the child process that tells it
    page          one HTML file, down to single answers

Each room may import those listed before it; tables, figures and wandb do not import one another.
"""
