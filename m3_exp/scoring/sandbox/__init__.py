"""Programs that a model wrote, run where they can do no harm, and judged where they never ran.

    judge.py     tasks -> verdicts: starts boxes side by side, tries canaries, gives a time-out its second try
    drivers.py   how boxes are started: bubblewrap, Landlock alone, a container, or (if the user allows it) nothing
    relay.py     the judge's counterpart inside a container, to which only two descriptors lead
    pair.py      one candidate's box and one grader's, watched against the clock
    warden.py    the process that forks boxes and ends them
    box.py       the process inside a box: a candidate (the model's program) or a grader (the benchmark's tests)
    reading.py   which reading of an answer is the program
    talk.py      requests and replies between the two
    standins.py  what stands in one process for an object of the other, and what it may be asked
    questions.py methods by which an object would judge itself: never called on a program's object
    codec.py     what crosses between the two: plain values, and numbers for other objects
    kinds.py     the types of plain values, and how those that can change are set
    packing.py   values -> JSON
    unpacking.py JSON -> values of exactly these types
    layout.py    how a set lies in its table, and how to make another that lies the same
    lockdown.py  what a box gives up before it reads foreign code: files, sockets, processes, memory, time

All but judge.py and drivers.py are run by a bare interpreter: they import nothing but the standard library and one
another. docs/security.md says what is covered and what is not.
"""
