"""m3_exp: merge language models, measure what came out, know whether a difference is significant.

From a command to a table (docs/design.md has the picture); folders are rooms with a map of their own:
    cli               parse, call; `command_line`: the words, and lines that ask for the same again
    arguments         what a command takes, and its --help; `completion`: what TAB offers
    store_commands    the commands that keep a store, parsed and called; `recipe_command`: m3 recipe
    printing          lines and tables as wide as the terminal
    actions, views/   what `m3` does and what it shows, as functions; `doctor`: is this machine fit; `lacking`: what a
                      request has not here
    soups             greedy model soups: runs whose scores say what the next run is
    recipes/          YAML files of mergekit, in and out
    config/           conf/ and overrides -> Config
    planning          Config -> Plan: cells, each a recipe on a benchmark
    running           a plan carried out: `groups` go to workers, their `events` come back
    launchers/        who starts workers, and where: threads of this process, Ray, Slurm
    worker            one engine and a store: `generating` has a group answered (`answers` on disk) in one `flight`,
                      and others are scored meanwhile
    tasks, prompts    a cell made ready: items, prompts as token ids; `chat`: a tokenizer's own chat template
    results           what the store has of a plan; `keys`: how records are named by what they are about
    upkeep/           a store checked, kept small, taken elsewhere, by what has no part in the work
    forecast          what a plan would cost; `forecast_words`: that in words; `schedule`: on described machines
    heartbeat         signs of life of a run; `progress`: what its user sees
    merging/          recipe -> stream of tensors
    engines/          weights and prompts -> answers
    scoring/          answers -> scores (benchmarks themselves: evaluators/ beside this package)
    reporting/        store -> tables, figures, page, W&B

Below all of them:
    types             the nouns: Recipe, Cell, Answer, Score, Result, Plan
    store/            results/store: paths, atomic files, journals, records
    stats/            every interval, test and adjustment
    benchmarks        what a benchmark is called, how it is drawn, where it stands
    amounts           times, counts and bytes as people say them; `busy`: how busy an engine was
    reading/          what others wrote, bounded and typed
    interrupts        Ctrl-C, and what schedulers send
    temporary         temporary files, and the end of those whose writers were killed

Apart: lab/ makes the small world of family=lab, `install` is `make setup`.
"""
