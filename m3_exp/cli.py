"""`m3`: the command line. Heavy imports live inside the commands, so that `m3 --help` is instant.

Exit codes: 0 done; 1 cells failed (named); 2 a wrong request (one line says why); 3 stopped at its budget, or what was
done is not what the store holds; 130 Ctrl-C.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TextIO, cast

from m3_exp import interrupts
from m3_exp.arguments import HELP, RUN, WIDE, ConfigShown, meant, of_table, parsed, show_config, takes
from m3_exp.command_line import names
from m3_exp.printing import line_of_whole, print_lines, print_list, print_table, say, tell
from m3_exp.reading.paths import given
from m3_exp.reading.shown import Escaping, abridged, columns, escaped
from m3_exp.recipe_command import recipe
from m3_exp.store_commands import collect, export, import_, verify
from m3_exp.types import M3Error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Whatever it prints is escaped once, here: names come from files."""
    out, err = sys.stdout, sys.stderr
    if argv is None:  # a process of its own: most of what a command makes stays until its end
        gc.set_threshold(50_000, 20, 20)
        interrupts.heed()
    sys.stdout, sys.stderr = cast(TextIO, Escaping(out)), cast(TextIO, Escaping(err))
    try:
        return _carried_out(list(sys.argv[1:] if argv is None else argv))
    finally:
        sys.stdout, sys.stderr = out, err


def _carried_out(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.read_text(encoding="utf-8"), end="")
        return 0
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"m3_exp {version('m3_exp')}")
        return 0
    command, rest = args[0], args[1:]
    try:
        if command not in COMMANDS:
            raise M3Error(f"m3 {command} is not a command{meant(command, COMMANDS)}; there are {', '.join(COMMANDS)}")
        return COMMANDS[command](rest)
    except ConfigShown:
        return 0
    except M3Error as error:
        say(f"m3: {escaped(abridged(str(error)))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return interrupts.code(stop)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"m3: {escaped(what)}; check that path, its rights and the free space", file=sys.stderr)
        return 2


# ------------------------------------------------------------------------------------------------------- commands


def run(args: Sequence[str]) -> int:
    parser = takes("run", "Plan, merge, evaluate and record. The same command continues after any interruption.")
    parser.add_argument("--wide", action="store_true", help=WIDE)
    budget = "stop {} (exit code 3 where cells are left); the same command goes on"
    parser.add_argument("--hours", type=float, metavar="H", help=budget.format("after so long, at the last answer"))
    parser.add_argument("--cells", type=int, metavar="N", help=budget.format("after so many cells"))
    options, asked = parsed(parser, args)
    show_config(options, asked)
    from m3_exp import actions, config
    from m3_exp.views import opening, retries, runs, tables, words
    from m3_exp.views.lookup import Lookup

    request = config.compose(asked)
    if request.choose:
        from m3_exp import soups

        return soups.command(request, hours=options.hours, cells=options.cells, as_json=options.json)
    about = [*words.lambdas(request.plan), *request.notes, *request.plan.notes]
    say(*about, *words.missing(request), *words.untried(request), file=sys.stderr)
    began = time.monotonic()
    outcome = actions.run(request, hours=options.hours, cells=options.cells)
    took = time.monotonic() - began
    failed = [str(failure) for failure in outcome.failures]
    again = retries.retries(asked, [failure.evaluation.cell for failure in outcome.failures])
    looked = Lookup.of(request)
    first = opening.first_words(looked, looked.frame())
    if options.json:
        more = {"failures": failed, "retries": again, "summary": first, "left": outcome.left}
        print(json.dumps({**vars(outcome), **more, "scores": tables.scores(looked)}))
    else:
        say(*first, "")
        print_table(tables.looked_up(looked), None, wide=options.wide, whole=tables.line(request))
        limits = [f"--{key}={value}" for key in ("hours", "cells") if (value := getattr(options, key)) is not None]
        end = words.ending(outcome, took, asked, limits, runs.own_line(outcome.run, request.store))
        say("", *chain(*map(words.failure, failed, again)), *end)
    say(*words.wrong(outcome, asked), file=sys.stderr)
    return 3 if outcome.left or outcome.wrong else 1 if failed else 0


def runs(args: Sequence[str]) -> int:
    parser = takes("runs", "List the runs of a store, the newest last; m3 table --run NAME goes back to one.")
    options, asked = parsed(parser, args)
    from m3_exp.views import runs, words

    known = runs.runs(asked)
    tell(options.json, lambda: runs.as_json(known), lambda: words.runs(known, columns(sys.stdout)))
    return 0


def wandb(args: Sequence[str]) -> int:
    parser = takes("wandb", "sync: record the store in W&B; workspace: compare alphas there.", first="sync|workspace")
    parser.add_argument("--out", type=given, metavar="FILE", help="workspace: write it here, and ask W&B nothing")
    options, asked = parsed(parser, args)
    what, *overrides = asked.overrides or [""]
    if what not in ("sync", "workspace"):
        raise M3Error("m3 wandb takes sync or workspace first, as in: m3 wandb sync sweeps=table1")
    asked = asked.with_overrides("tracker=wandb", *overrides)
    show_config(options, asked)
    from m3_exp.views import workspace

    if what == "workspace":
        say(*workspace.workspace(asked, options.out))
        return 0
    tracker = workspace.sync(asked)
    say(*workspace.keyless(asked), file=sys.stderr)
    print(json.dumps(tracker.done) if options.json else ", ".join(f"{n} {k}" for k, n in tracker.done.items()))
    return 1 if tracker.problems else 0


def plan(args: Sequence[str]) -> int:
    parser = takes("plan", "Show what would run and cost, what is done, what is the same twice. Reads no weights.")
    parser.add_argument("--list", action="store_true", help="what can be chosen: family, pair, method, ..., sweeps")
    options, asked = parsed(parser, args)
    if options.list:
        axes = ["family", "pair", "method", "ratio", "sparsify", "evaluator", "engine", "tracker", "launcher", "sweeps"]
        print_list(((axis, ", ".join(names(axis, options.config_dir))) for axis in axes), 10)
        return 0
    show_config(options, asked)
    from m3_exp import config
    from m3_exp.views import status, words

    found, jobs = status.plan(request := config.compose(asked)), status.jobs(request)
    tell(options.json, lambda: found.json | jobs, lambda: words.plan(request, found, columns(sys.stdout), jobs))
    return 0


def merge(args: Sequence[str]) -> int:
    parser = takes("merge", "Write a Hugging Face checkpoint into out=DIR, with a recipe.json: how it was made.")
    options, asked = parsed(parser, args)
    show_config(options, asked)
    from m3_exp import actions
    from m3_exp.planning import label_text

    written = actions.merge(asked)
    say(*sorted({line for one in written for line in one.report.get("notes", ())}), file=sys.stderr)
    for one in written:
        line = {"out": str(one.out), "weights": one.digest, "lambda": one.label.lam, "report": one.report}
        print(json.dumps(line) if options.json else f"{one.out}: {label_text(one.label)}, weights {one.digest}")
    return 0


def score(args: Sequence[str]) -> int:
    about = "Score saved answers, lines of {id, text}, with no model."
    parser = takes("score", about, first="BENCHMARK ANSWERS", settings="SETTING=VALUE")
    parser.add_argument("benchmark")
    parser.add_argument("answers", type=given)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="items=lab|official|PATH, extractor=...")
    parser.add_argument("--out", type=given, metavar="FILE", help="write a JSON line for each answer here")
    parser.add_argument("--audit", action="store_true", help="how the answers look, and what other rules make of them")
    options, _ = parsed(parser, args)
    from m3_exp import actions

    ways = {"out": options.out, "audit": options.audit, "config_dirs": options.config_dir}
    found = actions.score(options.benchmark, options.answers, options.settings, **ways)
    print(json.dumps(found))
    return int(found["n_unscored"] > 0)


def table(args: Sequence[str]) -> int:
    parser = takes("table", "Print the table NAME from the store: the rows that its sweep asks for.", first="NAME")
    of_table(parser)
    options, asked = parsed(parser, args)
    from m3_exp.views import runs, tables

    ways = {way: getattr(options, way) for way in ("select", "repeats", "variance", "all", "draw", "marks", "against")}
    if options.list:
        print_list(tables.titles(asked).items(), 16)
        return 0
    about = runs.request(options.run, asked) if options.run else tables.with_sweep(asked)
    show_config(options, about)
    built = tables.table(about, **ways)
    print_table(built, "json" if options.json else options.format, wide=options.wide, whole=line_of_whole(args))
    return 0


def figure(args: Sequence[str]) -> int:
    parser = takes("figure", "Draw a figure from the store; pair= and method= choose what it shows.", first="NAME")
    parser.add_argument("--list", action="store_true", help="name the figures and the sweeps they draw")
    parser.add_argument("--out", type=given, metavar="FILE", help=".svg, .pdf, .png; without it NAME.svg, NAME.png")
    options, asked = parsed(parser, args)
    from m3_exp.reporting.figures.catalogue import FIGURES
    from m3_exp.views import figures

    if options.list:
        swept = {key: f"  [{', '.join(spec.sweeps)}]" if spec.sweeps else "" for key, spec in FIGURES.items()}
        print_list(((key, f"{spec.title}{swept[key]}") for key, spec in FIGURES.items()), max(map(len, FIGURES)))
        return 0
    name, *overrides = options.overrides or [""]
    asked = asked.with_overrides(*overrides)
    show_config(options, *figures.requests(name, asked))
    paths = [str(path) for path in figures.files(name, asked, options.out)]
    print_lines(*([json.dumps(paths)] if options.json else paths))
    return 0


def response(args: Sequence[str]) -> int:
    parser = takes("response", "What every alpha would score, from the curves over lambda of sweeps=lambda_response.")
    parser.add_argument("--out", type=given, metavar="FILE", help="also draw it: .svg, .pdf or .png")
    parser.add_argument("--repeats", type=int, default=10_000, help="how often each way of choosing is tried")
    parser.add_argument("--check", action="store_true", help="compare the curves with evaluated draws")
    parser.add_argument("--run", metavar="NAME", help=RUN)
    options, asked = parsed(parser, args)
    from m3_exp.reporting.choices import advice
    from m3_exp.reporting.curves import prediction
    from m3_exp.views import opening, runs, studies, words

    if options.repeats < 1:
        raise M3Error(f"--repeats {options.repeats} is too few: give at least 1 (without it 10000)")
    if options.out:
        from m3_exp.reporting.figures import palette, responses

        palette.check(options.out)
    about = runs.request(options.run, asked) if options.run else None
    show_config(options, about or studies.request(asked))
    curves = studies.curves(about or asked)
    if options.check:
        checks = studies.checks(curves, repeats=options.repeats)
        said = (line for one, check in checks for line in words.check(one, check, columns(sys.stdout)))
        say(*said) if not options.json else print(prediction.as_json([check for _, check in checks]))
        return 0
    if options.out and len(curves.lines) > 1:
        raise M3Error("--out draws one pair and method: give pair= and method=")
    first = opening.first_words(curves.looked, curves.frame)
    if not options.json:
        say(*first, "")
    for study in studies.studies(curves, repeats=options.repeats):
        if options.json:
            print(advice.as_json(study, first))
        else:
            say(*words.study(study, columns(sys.stdout)))
        if options.out:
            print_lines(*palette.save(responses.draw_response(study), "response", options.out))
    say(*curves.lost, file=sys.stderr if options.json else sys.stdout)
    return 0


def report(args: Sequence[str]) -> int:
    parser = takes("report", "Write one self-contained HTML page: tables, curves, every cell down to single answers.")
    parser.add_argument("--out", type=given, metavar="DIR", default=Path("report"), help="where its index.html goes")
    parser.add_argument("--run", metavar="NAME", help=RUN)
    options, asked = parsed(parser, args)
    from m3_exp.views import page, runs

    about = runs.request(options.run, asked) if options.run else None
    show_config(options, *([about] if about else page.requests(asked)))
    path = page.report(about or asked, options.out)
    print(json.dumps({"path": str(path), "bytes": path.stat().st_size}) if options.json else path)
    return 0


def status(args: Sequence[str]) -> int:
    parser = takes("status", "Show a store's runs; of a request, or a run, what is done, running, failed and left.")
    parser.add_argument("--run", metavar="NAME", help=RUN)
    options, asked = parsed(parser, args)
    from m3_exp import config
    from m3_exp.views import runs, words
    from m3_exp.views import status as view

    if not (options.run or options.cfg or asked.without("store").overrides):
        state = runs.state(asked)
        tell(options.json, lambda: state.json, lambda: words.store(state, columns(sys.stdout)))
        return 0
    request = config.compose(runs.request(options.run, asked) if options.run else asked)
    show_config(options, request)
    found = view.status(request)
    tell(options.json, lambda: found.json, lambda: words.status(request, found))
    return 0


def doctor(args: Sequence[str]) -> int:
    parser = takes("doctor", "Say whether machine, models, data and sandbox are fit, and what would change it.")
    parser.add_argument("--engine", action="store_true", help="try it: are exchanged weights those of a fresh start?")
    options, asked = parsed(parser, args)
    show_config(options, asked)
    from m3_exp.doctor import examine, tried

    findings = tried(asked) if options.engine else examine(asked)
    if options.json:
        print(json.dumps([vars(finding) for finding in findings]))
    else:
        kinds = (("ok" if one.ok else "MISS" if one.needed else "note") for one in findings)
        print_list(zip(kinds, (f"{one.what}: {one.text}" for one in findings), strict=True), 4)
    return 1 if any(finding.needed and not finding.ok for finding in findings) else 0


def init(args: Sequence[str]) -> int:
    parser = takes("init", "Write own checkpoints as a family, from their files.", first="BASE EXPERT ...", settings="")
    parser.add_argument("base", help="the model that the experts are fine-tunes of: a directory, a .gguf file ...")
    parser.add_argument("experts", nargs="+", metavar="EXPERT", help="the same, or NAME=MODEL")
    parser.add_argument("--name", help="of the family; else that of the base's folder")
    parser.add_argument("--out", type=given, metavar="DIR", default=Path("own"), help="of family/ and pair/; else own")
    options, _ = parsed(parser, args)
    from m3_exp.config import own_family

    say(*own_family.write(**vars(options)).lines)
    return 0


def completion(args: Sequence[str]) -> int:
    from m3_exp.completion import command

    return command(args, COMMANDS)


_ALL = (
    *(run, runs, plan, merge, recipe, score, table, response, figure, report, status, verify),
    *(export, import_, collect, doctor, wandb, init, completion),
)
_NAMES = {import_: "import", collect: "gc"}  # words that Python has itself
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {_NAMES.get(one, one.__name__): one for one in _ALL}

if __name__ == "__main__":
    sys.exit(main())
