"""Faults: the real program is killed, starved and lied to, continued, and must end in the same bytes.

`make test-faults` runs them, two at a time; `make test` leaves them out.

    world     the small world that they run in, and how a run of it is made, killed and looked at
"""
