"""The first exchange of a session: which version, flags and sizes both sides use.

The rules are those of the comment "Version negotiation" in ``<linux/fuse.h>``: equal major versions
talk in the smaller minor version; a kernel with a larger major version is told ours and asks again.
"""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass

from . import abi, wire
from .abi import InitFlag

DEFAULT_PAGES = 32
"""Pages in a request when MAX_PAGES is not negotiated (128 KiB of 4 KiB pages)."""

_MAX_U16 = 0xFFFF
_MIN_WRITE = 4096  # what the kernel raises smaller values to
_EXTENSIONS_MINOR = 38  # before, nothing in a request told how long its security context is

NOT_IMPLEMENTED = InitFlag.SETXATTR_EXT | InitFlag.INIT_RESERVED
"""Flags that :mod:`.wire` cannot honour: they change the form of messages."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the session agreed on; :meth:`reply` tells the kernel."""

    minor: int
    """Minor version that both sides use; the major version is 7."""
    flags: InitFlag
    """Flags in force."""
    max_write: int
    """Largest payload of a WRITE, in bytes; a READ asks for no more either."""
    max_readahead: int
    """How far the kernel reads ahead, in bytes."""
    max_pages: int
    """Pages in one request; 0 when MAX_PAGES is not in force."""
    max_background: int
    """Asynchronous requests that may be under way at once."""
    congestion_threshold: int
    """How many of these make the kernel treat the drive as congested."""
    time_gran: int
    """Granularity of times, in ns."""
    max_stack_depth: int
    """How many filesystems may be stacked under passthrough files; 0 without PASSTHROUGH."""

    def reply(self, unique: int) -> bytes:
        """Return the answer to the INIT request."""
        out = abi.InitOut(
            major=abi.KERNEL_MAJOR,
            minor=self.minor,
            max_readahead=self.max_readahead,
            flags=int(self.flags) & 0xFFFFFFFF,
            max_background=self.max_background,
            congestion_threshold=self.congestion_threshold,
            max_write=self.max_write,
            time_gran=self.time_gran,
            max_pages=self.max_pages,
            map_alignment=0,
            flags2=int(self.flags) >> 32,
            max_stack_depth=self.max_stack_depth,
            request_timeout=0,
        )
        return wire.init(unique, out)


@dataclass(frozen=True, slots=True)
class Refused:
    """No session can begin on this INIT; :meth:`reply` tells the kernel."""

    reason: str
    """What to tell the user."""
    retry: bool = False
    """The kernel will send another INIT, with a version that we have named."""

    def reply(self, unique: int) -> bytes:
        """Return the answer to the INIT request: our version, or EPROTO."""
        if not self.retry:
            return wire.error(unique, errno.EPROTO)
        version = (abi.KERNEL_MAJOR, abi.KERNEL_MINOR)
        return wire.init(unique, abi.InitOut(*version, *(0,) * (len(abi.InitOut._fields) - 2)))


def negotiate(
    init_in: abi.InitIn,
    wanted: InitFlag,
    *,
    max_write: int = 1 << 20,
    max_readahead: int = 1 << 20,
    max_background: int = 64,
    congestion_threshold: int = 48,
    time_gran: int = 1,
    max_stack_depth: int = 0,
) -> Negotiated | Refused:
    """Agree with a kernel that sent *init_in* on a session with the *wanted* flags.

    Sizes are in bytes and are upper bounds. INIT_EXT and MAX_PAGES follow from what the kernel
    offers and need not be wanted. ValueError for a wanted flag of :data:`NOT_IMPLEMENTED` or a size
    that the protocol cannot express.
    """
    _validate(wanted, max_write, max_background, congestion_threshold)
    refusal = _version_refusal(init_in)
    if refusal is not None:
        return refusal
    flags = _agreed_flags(init_in, wanted, max_stack_depth)
    has_max_pages = InitFlag.MAX_PAGES in flags
    pages = min(-(-max_write // mmap.PAGESIZE), _MAX_U16 if has_max_pages else DEFAULT_PAGES)
    return Negotiated(
        minor=min(init_in.minor, abi.KERNEL_MINOR),
        flags=flags,
        max_write=min(max_write, pages * mmap.PAGESIZE),
        max_readahead=min(max_readahead, init_in.max_readahead),
        max_pages=pages if has_max_pages else 0,
        max_background=max_background,
        congestion_threshold=congestion_threshold,
        time_gran=time_gran,
        max_stack_depth=max_stack_depth if InitFlag.PASSTHROUGH in flags else 0,
    )


def _validate(
    wanted: InitFlag, max_write: int, max_background: int, congestion_threshold: int
) -> None:
    if wanted & NOT_IMPLEMENTED:
        raise ValueError(f"flags that cannot be honoured: {wanted & NOT_IMPLEMENTED!r}")
    if not _MIN_WRITE <= max_write <= 0xFFFFFFFF:
        raise ValueError(f"max_write must be {_MIN_WRITE} or more, not {max_write}")
    if not 0 <= congestion_threshold <= max_background <= _MAX_U16:
        raise ValueError(
            f"congestion_threshold {congestion_threshold} and max_background {max_background} "
            f"must be 0 to {_MAX_U16}, in this order"
        )


def _version_refusal(init_in: abi.InitIn) -> Refused | None:
    version = f"{init_in.major}.{init_in.minor}"
    if init_in.major > abi.KERNEL_MAJOR:
        known = f"{abi.KERNEL_MAJOR}.{abi.KERNEL_MINOR}"
        return Refused(f"the kernel speaks FUSE {version}; told it to use {known}", retry=True)
    needed = f"{abi.KERNEL_MAJOR}.{abi.MINOR_MIN}"
    if (init_in.major, init_in.minor) < (abi.KERNEL_MAJOR, abi.MINOR_MIN):
        return Refused(f"the kernel speaks FUSE {version}; {needed} (Linux 5.4) or newer is needed")
    return None


def _agreed_flags(init_in: abi.InitIn, wanted: InitFlag, max_stack_depth: int) -> InitFlag:
    offered = InitFlag(init_in.flags)
    wanted |= InitFlag.MAX_PAGES
    if InitFlag.INIT_EXT in offered:
        # Without the echo the kernel does not look at the upper half of our flags.
        offered |= InitFlag(init_in.flags2 << 32)
        wanted |= InitFlag.INIT_EXT
    if init_in.minor < _EXTENSIONS_MINOR:
        wanted &= ~InitFlag.SECURITY_CTX
    if not max_stack_depth:
        wanted &= ~InitFlag.PASSTHROUGH
    return offered & wanted
