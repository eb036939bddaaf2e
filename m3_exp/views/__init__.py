"""What `m3` shows, each a function of a command line's words that prints nothing and raises M3Error.

lookup.py      a request's plan, store, results and frame: what the others begin with
tables.py      which builder makes which table, and every way to show one
figures.py     which sweeps a figure draws
studies.py     `m3 response`: what every alpha would score, and the check against real draws
page.py        `m3 report`: the page with tables, curves, and every cell down to single answers
status.py      what is done, running, failed and left, and the lines that retry what failed
workspace.py   what W&B gets of a store
"""
