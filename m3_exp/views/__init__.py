"""What `m3` shows, as functions of a CommandLine: each opens the store itself, prints nothing and raises M3Error.

    tables.table(CommandLine(("sweeps=table1",)))        status.status(CommandLine(("pair=lm_math",)))

Those of one request (status, workspace, `tables.whole`) also take it composed, as `config.compose` makes it.

lookup.py      a request with the results, frame and curves that its store has: what the others begin with
opening.py     the first words of a request, of which `m3 run`, `m3 response` and the page make use
tables.py      which function builds which table, and the ways to show one
figures.py     which sweeps a figure draws
studies.py     `m3 response`: what every alpha would score, and the check against observed draws
page.py        `m3 report`: the page with tables, curves, and every cell down to single answers
answers.py     `m3 export answers`: every answer as a line of a file
status.py      what is done, running, failed and left; `retries.py`: the lines that retry what failed; `by_part.py`:
               which tensors the parts of a plan's recipes name
runs.py        the runs of a store, and the way back to one: what it asked for
stores.py      `m3 verify` and `m3 export store`: what a request, a run or a store holds, and how it travels
workspace.py   what W&B gets of a store
words.py       all of these as lines of text
"""
