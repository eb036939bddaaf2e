"""Models that a score needs beside the one that is scored, such as a masked language model."""

from pathlib import Path

from m3_exp.merging.source import locate, parse_source
from m3_exp.types import M3Error


def folder(setting: str, name: str) -> Path:
    """Return the folder of the model that a setting names: a directory or a hub id, fetched from there if need be.

    Raises:
        M3Error: it is not to be had.
    """
    try:
        return locate(parse_source(name))
    except M3Error as error:
        raise M3Error(f"{setting}={name}: {error}") from None
