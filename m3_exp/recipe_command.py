"""`m3 recipe`: recipes of mergekit as commands of m3, and the other way round."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from m3_exp.arguments import parsed, show_config, takes
from m3_exp.printing import say
from m3_exp.reading.paths import given
from m3_exp.types import M3Error


def recipe(args: Sequence[str]) -> int:
    about = (
        "import: print the m3 merge that makes the weights of a mergekit YAML file; settings are added to it. export:"
        " print the mergekit YAML that makes the weights of an m3 merge."
    )
    parser = takes("recipe", about, first="import|export")
    parser.add_argument("--out", type=given, metavar="FILE", help="export: write the YAML here")
    options, asked = parsed(parser, args)
    what, *words = asked.overrides or [""]
    if what not in ("import", "export"):
        raise M3Error("m3 recipe takes import or export first, as in: m3 recipe import merge.yaml out=merged")
    if what == "export":
        asked = asked.with_overrides(*words)
        show_config(options, asked)
        from m3_exp.recipes import exporting
        from m3_exp.store import write_atomic

        made = exporting.exported(asked)
        say(*made.notes, file=sys.stderr)
        if options.out is None:
            print(json.dumps({"yaml": made.text, "notes": list(made.notes)}) if options.json else made.text.rstrip())
            return 0
        write_atomic(options.out, made.text.encode())
        print(json.dumps({"out": str(options.out), "notes": list(made.notes)}) if options.json else options.out)
        return 0
    if not words or "=" in words[0]:
        raise M3Error("m3 recipe import takes a file of mergekit first, as in: m3 recipe import merge.yaml out=merged")
    if options.out is not None:
        raise M3Error("--out has no effect on m3 recipe import: give out=DIR, where the checkpoint goes")
    from m3_exp.recipes import importing

    found = importing.command(Path(given(words[0])), asked.with_overrides(*words[1:]))
    show_config(options, found.asked)
    say(*found.notes, file=sys.stderr)
    line = found.asked.line("merge")
    print(json.dumps({"command": shlex.split(line), "notes": list(found.notes)}) if options.json else line)
    return 0
