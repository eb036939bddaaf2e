"""What keeps a store in order: whether it holds what it should, what can go, and how it travels.

    reader.py    a store as its files are: every record, journal and leftover, and nothing is ever changed
    files.py     every file of a store against its checksum, its key and what it refers to
    cells.py     every planned cell: scored on all its items, failed with a reason, missing, or wrong
    results.py   one result against its cell, its items, its answers and its own figures
    rescoring.py stored answers scored once more, item by item
    rebuild.py   what can be made again, and how it is removed (`m3 gc`)
    tar.py       archives that hold nothing but plain files, in known bytes
    archive.py   a store, or what some plans need of it, as one archive
    intake.py    an archive checked, and taken into a store

Nothing here imports what carries a run out, or what looks results up: who did the work does not check it.
"""
