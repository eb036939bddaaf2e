"""What `m3` shows, as functions that return it and print nothing. What is wrong is raised as M3Error.

lookup.py      a request's plan, store, results and frame (`Lookup`): what the others begin with
tables.py      which function builds which table, and the ways to show one
figures.py     which sweeps a figure draws
studies.py     `m3 response`: what every alpha would score, and the check against observed draws
page.py        `m3 report`: the page with tables, curves, and every cell down to single answers
status.py      what is done, running, failed and left; `retries.py`: the lines that retry what failed
workspace.py   what W&B gets of a store
words.py       the lines of text that the command line prints of them
"""
