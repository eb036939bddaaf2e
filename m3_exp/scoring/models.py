"""Models that a score needs beside the one that is scored, such as a masked language model."""

from pathlib import Path

from m3_exp.merging.source import locate, parse_source


def folder(name: str) -> Path:
    """Return the folder of a model: a directory or a hub id, fetched from there if need be.

    Raises:
        M3Error: it is not to be had.
    """
    return locate(parse_source(name))
