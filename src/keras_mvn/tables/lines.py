"""The lines of a text file, decoded, without those that are no part of the table."""

from __future__ import annotations

import codecs
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from keras_mvn._core.optional import require

__all__ = ["BLOCK", "Lines", "Stream"]

BLOCK = 1 << 20
"""Bytes of text read at a time."""


@final
@dataclass(frozen=True)
class Lines:
    """The lines of a text file that belong to its table.

    Args:
        path: Path of the file, compressed or not.
        encoding: str, its encoding.
        skip: int, number of lines before the table.
        footer: int, number of lines after the table, not counting empty ones.
        comment: str, the text with which lines begin that are left out; None: there are none.

    """

    path: Path
    encoding: str
    skip: int = 0
    footer: int = 0
    comment: str | None = None
    comments: list[int] = field(default_factory=list, compare=False)
    """The number of lines left out as comments, once all were read."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the whole file in UTF-8, a block at a time."""
        arrow = require("pyarrow", "reading a table")
        with arrow.input_stream(str(self.path), compression="detect") as stream:
            if codecs.lookup(self.encoding).name == "utf-8":
                while block := stream.read(BLOCK):
                    yield block
                return
            decoder = codecs.getincrementaldecoder(self.encoding)()
            while block := stream.read(BLOCK):
                yield decoder.decode(block).encode()
            yield decoder.decode(b"", final=True).encode()

    def table(self, header: int) -> Iterator[bytes]:
        """Yield the rows in UTF-8, in blocks, without the first `header` lines of the table."""
        if self.comment is None and not self.footer:
            yield from _after(self.skip + header, self.blocks())
            return
        kept: list[bytes] = []
        size = 0
        for i, (_, line) in enumerate(self.numbered()):
            if i >= header:
                kept.append(line)
                size += len(line)
            if size >= BLOCK:
                yield b"".join(kept)
                kept, size = [], 0
        yield b"".join(kept)

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines of the table with their numbers in the file, from 1."""
        held: deque[tuple[int, bytes]] = deque()
        waiting = comments = 0
        for number, line in enumerate(_lines(self.blocks()), 1):
            if number <= self.skip:
                continue
            if self.is_comment(line):
                comments += 1
                continue
            held.append((number, line))
            waiting += bool(line.strip())
            while waiting > self.footer:
                first = held.popleft()
                waiting -= bool(first[1].strip())
                yield first
        if not self.footer:
            yield from held
        self.comments[:] = [comments]

    def is_comment(self, line: bytes) -> bool:
        """Whether a line in UTF-8 begins with the text that marks comments."""
        return self.comment is not None and line.lstrip(b"\xef\xbb\xbf \t").startswith(
            self.comment.encode()
        )


_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")
"""The end of a line; a carriage return at the end of a block may be half of one."""


def _after(count: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out the first `count` lines."""
    rest = b""
    for fresh in blocks:
        block, start = rest + fresh, 0
        while count and (end := _LINE_END.search(block, start)):
            start = end.end()
            count -= 1
        rest = block[start:]
        if not count:
            yield rest
            yield from blocks
            return
    # A file with so few lines; its last one may end in a carriage return alone, or not at all.


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        parts = (rest + block).splitlines(keepends=True)
        rest = parts.pop() if parts else b""
        yield from parts
    if rest:
        yield rest


@final
class Stream(io.RawIOBase):
    """A file object over blocks of bytes, as `pyarrow` reads one."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the current block reaches."""
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Close what the blocks are read from."""
        closing = getattr(self._blocks, "close", None)
        if closing is not None:
            closing()
        super().close()
