"""The commands that keep a store: `m3 verify`, `m3 export`, `m3 import`, `m3 gc`."""

import json
from collections.abc import Sequence
from pathlib import Path

from m3_exp.arguments import RUN, parsed, show_config, takes
from m3_exp.printing import tell
from m3_exp.reading.paths import given
from m3_exp.types import M3Error


def verify(args: Sequence[str]) -> int:
    about = (
        "Hold a store against itself, changing nothing: every planned cell is scored on all its items, failed with a"
        " reason, or missing. Without a request: every plan and file. Exit code 3: something is wrong."
    )
    parser = takes("verify", about)
    parser.add_argument("--run", metavar="NAME", help=RUN)
    parser.add_argument("--rescore", action="store_true", help="score the stored answers again and compare every item")
    options, asked = parsed(parser, args)
    show_config(options, asked)
    from m3_exp.views import stores

    found = stores.verify(asked, options.run, again=options.rescore)
    tell(options.json, lambda: found.json, found.lines)
    return found.code


def export(args: Sequence[str]) -> int:
    about = (
        "answers: each answer of a request as a line of a file, which m3 score reads; of all, with store= alone. store:"
        " an archive of the store, or of what a request's tables need, which m3 import reads."
    )
    parser = takes("export", about, first="answers|store")
    parser.add_argument("--out", type=given, metavar="FILE", help="write here; store: a name that ends in .tar.gz")
    parser.add_argument("--format", choices=["jsonl", "csv", "parquet"], help="without it what --out ends in")
    parser.add_argument("--run", metavar="NAME", help=RUN)
    options, asked = parsed(parser, args)
    what, *overrides = asked.overrides or [""]
    if what not in ("answers", "store"):
        raise M3Error(
            "m3 export takes answers or store first, as in: m3 export answers sweeps=demo --out answers.jsonl"
        )
    show_config(options, asked := asked.with_overrides(*overrides))
    from m3_exp.views import answers, runs, stores

    if what == "store":
        if options.format:
            raise M3Error(f"--format {options.format} has no effect on m3 export store: leave it out")
        packed = stores.export(asked, options.run, options.out)
        told = {"out": str(packed.out), "files": packed.members, "bytes": packed.bytes}
        tell(options.json, lambda: {**told, "left_out": list(packed.left_out)}, packed.lines)
        return 0
    source = runs.request(options.run, asked) if options.run else asked
    found = answers.export(source, options.out, options.format)
    print(json.dumps(vars(found)) if options.json else found)
    return 0


def import_(args: Sequence[str]) -> int:
    about = "Take an archive of m3 export store into a store; what that has already stays as it is."
    parser = takes("import", about, first="FILE")
    options, asked = parsed(parser, args)
    name, *overrides = asked.overrides or [""]
    if not name or "=" in name:
        raise M3Error("m3 import takes an archive first, as in: m3 import store.tar.gz store=results/store")
    show_config(options, asked := asked.with_overrides(*overrides))
    from m3_exp.upkeep import intake
    from m3_exp.views.runs import place

    found = intake.take(Path(given(name)), place(asked))
    told = {"store": str(found.store), "new": found.new, "there": found.there, "kept": list(found.kept)}
    tell(options.json, lambda: told, found.lines)
    return 0


def collect(args: Sequence[str]) -> int:
    about = "Say which files of a store can go, since they can be made again or nothing needs them; --yes removes them."
    parser = takes("gc", about)
    parser.add_argument("--yes", action="store_true", help="remove them")
    parser.add_argument("--quota", metavar="SIZE", help="only until the store fits, as 50GB: what nobody misses first")
    kinds = "temporary, quarantine, logs, wandb, caches, statistics, tokenizers, checkpoints; or, only by name, answers"
    parser.add_argument("--only", action="append", default=[], metavar="KIND", help=kinds)
    options, asked = parsed(parser, args)
    show_config(options, asked)
    from m3_exp.store import Store
    from m3_exp.upkeep import rebuild
    from m3_exp.views.runs import place

    at_most = rebuild.quota(options.quota) if options.quota is not None else None
    found = rebuild.sweep(Store(place(asked)), only=options.only, at_most=at_most, yes=options.yes)
    told = {"kinds": found.kinds, "freed": found.freed, "left": found.left, "removed": found.done}
    tell(options.json, lambda: told, found.lines)
    return 0
