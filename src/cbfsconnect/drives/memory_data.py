"""The bytes of a memory drive: sparse contents, and the space they share.

A content is a dict of chunks by index. A chunk is a bytearray that ends with the last byte ever
written to it; what is missing, within a chunk or whole chunks, reads as zeros. So an empty or
sparse file costs nothing, an appended one is copied once, and a truncated one frees its memory.

Nothing here locks: the drive calls it under its own lock.
"""

from __future__ import annotations

import errno
import os

BLOCK = 4096
"""Bytes in which contents are charged to the space."""

_SHIFT = 16
CHUNK = 1 << _SHIFT
"""Bytes of a chunk: large enough to copy at the speed of memory, small enough for sparse files."""

_MASK = CHUNK - 1
_ZEROS = bytearray(CHUNK)
_ZERO_VIEW = memoryview(bytes(CHUNK))


def failure(number: int) -> OSError:
    """The exception that stands for an errno, of the subclass that Python has for it."""
    return OSError(number, os.strerror(number))


def blocks(size: int) -> int:
    """`size` bytes, rounded up to whole blocks."""
    return (size + BLOCK - 1) & -BLOCK


class Space:
    """What a drive may hold, in bytes. Who takes must give back exactly as much."""

    __slots__ = ("free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total

    def take(self, count: int) -> None:
        """Charges `count` bytes; raises OSError(ENOSPC) and charges nothing if there are not so
        many."""
        if count > self.free:
            raise failure(errno.ENOSPC)
        self.free -= count


class Content:
    """A sequence of bytes with holes, and how many names and openings keep it alive."""

    __slots__ = ("chunks", "held", "links", "opens", "reserved", "size")

    def __init__(self) -> None:
        self.size = 0
        self.held = 0
        """Bytes in chunks, in whole blocks."""
        self.reserved = 0
        """Bytes promised by `reserve`. The space is charged with the larger of the two."""
        self.chunks: dict[int, bytearray] | None = None
        self.links = 1
        self.opens = 0

    def touch(self, now: int) -> None:
        """Notes that the bytes changed at `now` (ns since 1970)."""

    @property
    def allocated(self) -> int:
        """The bytes that this content is charged with."""
        return self.held if self.held > self.reserved else self.reserved

    def read(self, position: int, target: memoryview) -> int:
        """Copies bytes from `position` on into `target`; returns how many there were."""
        total = min(len(target), self.size - position)
        if total <= 0:
            return 0
        chunks = self.chunks or {}
        done = 0
        while done < total:
            index, start = (position + done) >> _SHIFT, (position + done) & _MASK
            count = min(CHUNK - start, total - done)
            chunk = chunks.get(index)
            stored = 0 if chunk is None else max(0, min(count, len(chunk) - start))
            if chunk is not None and stored:
                target[done : done + stored] = memoryview(chunk)[start : start + stored]
            if stored < count:
                target[done + stored : done + count] = _ZERO_VIEW[: count - stored]
            done += count
        return total

    def write(self, space: Space, position: int, data: memoryview) -> int:
        """Stores `data` at `position`; returns how many bytes the space allowed, possibly 0.

        Zeros within the size make or leave holes where they fill a chunk: that is how punching a
        hole arrives. Appended zeros are stored, as whoever fills a drive with them expects.
        """
        total = len(data)
        may_punch = position + total <= self.size
        done = 0
        while done < total:
            index, start = (position + done) >> _SHIFT, (position + done) & _MASK
            count = min(CHUNK - start, total - done)
            piece = data if count == total else data[done : done + count]
            if not (may_punch and self._punch(space, index, piece)):
                stored = self._store(space, index, start, piece)
                if stored < count:
                    done += stored
                    break
            done += count
        if done and position + done > self.size:
            self.size = position + done
        return done

    def truncate(self, space: Space, size: int) -> None:
        """Sets the size; a grown part reads as zeros and costs nothing."""
        if size <= self.size:
            self._cut(space, size)
            if self.reserved:
                self._charge(space, self.held, min(self.reserved, blocks(size)))
        self.size = size

    def reserve(self, space: Space, size: int) -> None:
        """Promises space for the first `size` bytes; raises OSError(ENOSPC) if it is not there."""
        wanted = max(self.reserved, blocks(size))
        if max(wanted, self.held) - self.allocated > space.free:
            raise failure(errno.ENOSPC)
        self._charge(space, self.held, wanted)

    def clear(self, space: Space) -> None:
        """Forgets all bytes and gives their space back."""
        self._charge(space, 0, 0)
        self.chunks = None
        self.size = 0

    def _charge(self, space: Space, held: int, reserved: int) -> None:
        before = self.allocated
        self.held = held
        self.reserved = reserved
        space.free -= self.allocated - before

    def _punch(self, space: Space, index: int, piece: memoryview) -> bool:
        """Makes or leaves a hole if that is what writing `piece` comes to."""
        chunks = self.chunks
        chunk = None if chunks is None else chunks.get(index)
        if chunk is not None and len(piece) < CHUNK:
            return False
        # A bytearray on the left compares as memcmp does, and so ends at the first difference.
        if (_ZEROS if len(piece) == CHUNK else bytearray(len(piece))) != piece:
            return False
        freed = 0
        if chunks is not None and chunk is not None:
            freed = blocks(len(chunk))
            del chunks[index]
        # What was promised for this chunk is given up with it: a punched hole must free space.
        reserved = self.reserved - CHUNK if len(piece) == CHUNK else self.reserved
        self._charge(space, self.held - freed, max(0, reserved))
        return True

    def _store(self, space: Space, index: int, start: int, piece: memoryview) -> int:
        """Writes within one chunk; returns how many bytes the space allowed."""
        chunks = self.chunks
        if chunks is None:
            chunks = self.chunks = {}
        chunk = chunks.get(index)
        length = 0 if chunk is None else len(chunk)
        end = start + len(piece)
        if chunk is not None and end <= length:
            memoryview(chunk)[start:end] = piece
            return len(piece)
        had = blocks(length)
        growth = blocks(end) - had
        room = space.free + self.allocated - self.held
        if growth > room:
            piece = piece[: max(0, had + (room & -BLOCK) - start)]
            if not piece:
                return 0
            growth = blocks(start + len(piece)) - had
        if chunk is None and not start:
            chunks[index] = bytearray(piece)
        else:
            if chunk is None:
                chunk = chunks[index] = bytearray(start)
            elif start > length:
                chunk += _ZERO_VIEW[: start - length]
            elif start < length:
                del chunk[start:]
            chunk += piece
        if growth:
            self._charge(space, self.held + growth, self.reserved)
        return len(piece)

    def _cut(self, space: Space, size: int) -> None:
        """Drops what is stored from `size` on, so that growing again shows zeros."""
        chunks = self.chunks
        if not chunks:
            return
        last, keep = size >> _SHIFT, size & _MASK
        first = last + 1 if keep else last
        freed = 0
        for index in self._indexes_from(chunks, first):
            chunk = chunks.pop(index, None)
            freed += 0 if chunk is None else blocks(len(chunk))
        chunk = chunks.get(last) if keep else None
        if chunk is not None and len(chunk) > keep:
            freed += blocks(len(chunk)) - blocks(keep)
            del chunk[keep:]
        self._charge(space, self.held - freed, self.reserved)

    def _indexes_from(self, chunks: dict[int, bytearray], first: int) -> range | list[int]:
        """Indexes to look at for chunks from `first` on: whichever way is shorter."""
        end = ((self.size - 1) >> _SHIFT) + 1
        if end - first <= len(chunks):
            return range(first, end)
        return [index for index in chunks if index >= first]
