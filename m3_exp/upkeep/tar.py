"""Archives (.tar.gz) that hold plain files alone: written in known bytes, and read without trust.

Python's `tarfile` follows what an archive says of links, devices, sparse files and names of any length. Here a member
is one header of 512 bytes and its content; all else is refused before a byte of it is kept.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from m3_exp.types import M3Error

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_PADDING = 20 * _BLOCK  # with which tar fills up its last record


@dataclass(frozen=True)
class Member:
    name: str
    size: int


class Writer:
    """Writes members into a file, compressed: the same members give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._stream = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)

    def add(self, name: str, size: int, chunks: Iterator[bytes]) -> None:
        """Add a file of so many bytes.

        Raises:
            M3Error: its content has another length by now, or its name is too long for an archive.
        """
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        try:
            header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
        except ValueError as error:
            raise M3Error(f"{name} cannot stand in an archive ({error}): remove or rename it") from None
        self._stream.write(header)
        written = 0
        for chunk in chunks:
            self._stream.write(chunk)
            written += len(chunk)
        if written != size:
            raise M3Error(f"{name} changed while it was read: try again when nothing writes to the store")
        self._stream.write(bytes(-size % _BLOCK))

    def close(self) -> None:
        self._stream.write(bytes(2 * _BLOCK))
        self._stream.close()


class Reader:
    """Reads the members of an archive in their order; every one must be read to its end before the next.

    All that is wrong with it raises M3Error, which names `where` it lies.
    """

    def __init__(self, file: BinaryIO, where: object) -> None:
        self._stream, self._where = gzip.GzipFile(fileobj=file, mode="rb"), where

    def next(self) -> Member | None:
        """Return the next member, None at the end of the archive, after which nothing may follow."""
        block = self._take(_BLOCK)
        if block == bytes(_BLOCK):
            self._end()
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
            raise self._damaged("a header is no header") from None
        if info.type != tarfile.REGTYPE or info.linkname or info.size < 0:
            raise self._refused(f"{info.name!r} is no plain file (a link, a device, a folder or a sparse file)")
        return Member(info.name, info.size)

    def chunks(self, member: Member) -> Iterator[bytes]:
        """Give the content of the member that `next` returned."""
        left = member.size
        while left:
            chunk = self._take(min(left, _CHUNK))
            left -= len(chunk)
            yield chunk
        if any(self._take(-member.size % _BLOCK)):
            raise self._damaged(f"something stands after the end of {member.name!r}")

    def _take(self, n: int) -> bytes:
        data = self._read(lambda: self._stream.read(n))
        if len(data) != n:
            raise self._damaged("it ends too early")
        return data

    def _end(self) -> None:
        """Read the end: two empty blocks, and no more of them than tar itself adds."""
        rest = self._read(lambda: self._stream.read(_PADDING + 1))
        if not _BLOCK <= len(rest) <= _PADDING or any(rest):
            raise self._damaged("something stands after its end")

    def _read(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, how: str) -> M3Error:
        return M3Error(f"{self._where} is damaged, or no archive of m3 export store ({how}): fetch it again")

    def _refused(self, why: str) -> M3Error:
        return M3Error(f"{self._where} is refused: {why}; m3 export store writes no such archive")
