"""The one owner of results/store.

    store.py     the paths, and an accessor for each kind: Store, Records, Answers
    records.py   what the kinds hold, as dataclasses
    journal.py   a line an answer, on disk when it is acknowledged
    files.py     files and folders that appear whole or not at all
    locks.py     locks on files, which end with their holders
    leases.py    who is at work on which group of cells

Invariants (docs/design.md, "The store"):
  keys       nothing is keyed by a path or a name; a changed input is a new key, and nothing is ever edited
  publish    a file or directory appears under its final name only when it is complete and synced
  journal    one line an answer, `crc32 json`, one write on an O_APPEND descriptor, then fdatasync; one file for each
             writer, held under flock; on reading, a torn last line is dropped and its item redone
  damage     every record and every line carries a checksum: one that does not match is named on stderr, set aside in
             quarantine/ and made again, never used
  loss       SIGKILL at any instant loses at most what was not yet acknowledged; a temporary file that it leaves is
             removed by whoever writes there next, or begins a run (temporary.py)
  result     written once, atomically, last: absent means not done
"""

from m3_exp.store.files import check_new, dumps, publish_directory, sync, write_atomic
from m3_exp.store.journal import Journal, Tail
from m3_exp.store.leases import BEAT, Held, lock_reach
from m3_exp.store.locks import hold, in_turn, locked
from m3_exp.store.records import (
    AnswerSet,
    Cutoff,
    FailureNote,
    Inputs,
    Majority,
    Measured,
    Merge,
    PastRun,
    Prepared,
    Rate,
    Rendered,
    RunRecord,
    Spelled,
    StoredAnswer,
    WorkerRecord,
)
from m3_exp.store.store import DEFAULT_ROOT, STORE_FORMAT, Answers, Records, Store, WandbFiles, decoded

__all__ = [
    "BEAT", "DEFAULT_ROOT", "STORE_FORMAT", "AnswerSet", "Answers", "Cutoff", "FailureNote", "Held", "Inputs",
    "Journal", "Majority", "Measured", "Merge", "PastRun", "Prepared", "Rate", "Records", "Rendered", "RunRecord",
    "Spelled", "Store", "StoredAnswer", "Tail", "WandbFiles", "WorkerRecord", "check_new", "decoded", "dumps", "hold",
    "in_turn", "lock_reach", "locked", "publish_directory", "sync", "write_atomic",
]  # fmt: skip
