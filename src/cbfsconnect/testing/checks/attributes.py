"""Modes, owners, times, extended attributes."""

from __future__ import annotations

import os

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import NotSupported, Trial


def _given(t: Trial, *parameters: str) -> bool:
    """Whether the drive has ever said one of these of an item."""
    return any(
        f.left is not None and any(f.left.get(p) is not None for p in parameters)
        for f in t.recording.fired
        if f.name in ("on_get_file_info", "on_enumerate_directory")
    )


def _modes(t: Trial) -> None:
    t("write('file')")
    t("os.stat('file')")
    if not _given(t, "mode"):
        raise NotSupported("on_get_file_info gives no mode: it keeps no permissions")


@check(
    "attributes.new_mode",
    "a new item has the mode it was made with, less the umask",
    "write",
    rule="open(2), mkdir(2): mode & ~umask.",
    hint="on_create_file must keep mode (the umask is taken off already), and on_get_file_info "
    "give it.",
)
def new_mode(t: Trial) -> None:
    """Files and directories."""
    _modes(t)
    t("os.umask(0o027); write('one', b'', 0o666); write('two', b'', 0o755)")
    t.equal("oct(mode('one')), oct(mode('two'))", ("0o640", "0o750"))
    t.probe("os.mkdir('d', 0o777)", "directories")
    t.equal("oct(mode('d'))", "0o750")


@check(
    "attributes.chmod",
    "chmod changes permissions, and nothing else",
    "write",
    "attributes",
    rule="chmod(2).",
    hint="on_set_file_attributes has mode not None for a chmod; its other parameters are None and "
    "must leave things as they are.",
)
def chmod(t: Trial) -> None:
    """By path and by descriptor."""
    _modes(t)
    t("write('file', b'content'); os.utime('file', ns=(10**18, 10**18))")
    t("before = os.stat('file')")
    for bits in (0o600, 0o4751, 0o444, 0o644):
        t("os.chmod('file', bits)", bits=bits)
        t.equal("oct(mode('file'))", oct(bits))
    t("fd = os.open('file', os.O_RDONLY); os.fchmod(fd, 0o640); os.close(fd)")
    t.equal("oct(mode('file'))", "0o640")
    t.equal("stat.S_ISREG(os.stat('file').st_mode), read('file')", (True, b"content"))
    t.equal("os.stat('file').st_mtime_ns == before.st_mtime_ns", True)


@check(
    "attributes.chown",
    "chown changes owner or group, or both",
    "write",
    "attributes",
    rule="chown(2): -1 leaves one as it is.",
    hint="on_set_file_attributes has uid and gid; None leaves one as it is.",
)
def chown(t: Trial) -> None:
    """Only root may."""
    if os.geteuid() != 0:
        raise NotSupported("only root gives files away: run the checks as root")
    t("write('file'); os.stat('file')")
    if not _given(t, "uid", "gid"):
        raise NotSupported("on_get_file_info gives no uid and no gid: it keeps no owners")
    t("owner = lambda: (os.stat('file').st_uid, os.stat('file').st_gid)")
    for uid, gid, wanted in ((1, 2, (1, 2)), (-1, 3, (1, 3)), (4, -1, (4, 3)), (0, 0, (0, 0))):
        t("os.chown('file', uid, gid)", uid=uid, gid=gid)
        t.equal("owner()", wanted)


@check(
    "attributes.times",
    "times that were set are kept",
    "write",
    "attributes",
    rule="utimensat(2): times of access and change are set, as exactly as the drive stores them "
    "(2 seconds are allowed).",
    hint="on_set_file_attributes has last_write_time_ns and last_access_time_ns (or the datetime "
    "parameters without _ns); on_get_file_info must give them back. Times are UTC.",
)
def times(t: Trial) -> None:
    """Files, old and far."""
    t("write('file', b'x'); os.stat('file')")
    if not _given(t, "last_write_time_ns", "creation_time_ns"):
        raise NotSupported("on_get_file_info gives no times: it keeps none")
    for when in (1_600_000_000_123_456_789, 1_000_000_001_999_999_999):
        t("os.utime('file', ns=(when, when + 3600 * 10**9))", when=when)
        t.equal(
            "(0 <= when + 3600 * 10**9 - os.stat('file').st_mtime_ns < 2 * 10**9) or "
            "os.stat('file').st_mtime_ns",
            True,
            when=when,
        )
    if _given(t, "last_access_time_ns"):
        t.equal("(0 <= when - os.stat('file').st_atime_ns < 2 * 10**9) or os.stat('file')", True)
    t("fd = os.open('file', os.O_WRONLY); os.write(fd, b'now'); os.close(fd)")
    t.equal(
        "os.stat('file').st_mtime > 1_700_000_000",
        True,
        rule="write(2) sets the time of the last change.",
        hint="on_write_file must set the time of last change, unless the kernel's write-back cache "
        "does by on_set_file_attributes.",
    )


@check(
    "attributes.streams",
    "extended attributes are set, read, listed and removed",
    "write",
    "streams",
    rule="setxattr(2), getxattr(2), removexattr(2): XATTR_CREATE is EEXIST, XATTR_REPLACE ENODATA.",
    hint="user.NAME is the stream PATH:NAME (setting StreamSeparator): it is looked up, opened, "
    "written and deleted like a file, and belongs to the item.",
)
def streams(t: Trial) -> None:
    """The life of an attribute."""
    t("write('file', b'content')")
    t.fails("os.getxattr('file', 'user.none')", "ENODATA")
    t.probe("os.setxattr('file', 'user.one', b'1')", "extended attributes")
    t("os.setxattr('file', 'user.two', bytes(range(256)) * 8)")
    t.equal("os.getxattr('file', 'user.one')", b"1")
    t.equal("os.getxattr('file', 'user.two')", bytes(range(256)) * 8)
    t("os.setxattr('file', 'user.two', b'shorter')")
    t.equal(
        "os.getxattr('file', 'user.two')",
        b"shorter",
        hint="A new value replaces the old: on_set_file_size comes first.",
    )
    t.fails("os.setxattr('file', 'user.one', b'', os.XATTR_CREATE)", "EEXIST")
    t.fails("os.setxattr('file', 'user.three', b'', os.XATTR_REPLACE)", "ENODATA")
    t("os.setxattr('file', 'user.empty', b'')")
    t.equal("os.getxattr('file', 'user.empty')", b"")
    t.equal("read('file'), os.stat('file').st_size", (b"content", 7))
    t.need("delete")
    t("os.removexattr('file', 'user.one')")
    t.fails("os.getxattr('file', 'user.one')", "ENODATA")
    t.fails("os.removexattr('file', 'user.one')", "ENODATA")


@check(
    "attributes.stream_names",
    "extended attributes are listed, and go with the item's name",
    "write",
    "streams",
    "stream names",
    rule="listxattr(2).",
    hint="on_enumerate_named_streams gives ':NAME' for each stream, then named_stream_found False.",
)
def stream_names(t: Trial) -> None:
    """Names of attributes."""
    t("write('file')")
    t.equal("os.listxattr('file')", [])
    t.probe("for n in 'abc': os.setxattr('file', f'user.{n}', n.encode())", "extended attributes")
    t.equal("sorted(os.listxattr('file'))", ["user.a", "user.b", "user.c"])
    t.need("rename")
    t("os.rename('file', 'other')")
    t.equal("sorted(os.listxattr('other'))", ["user.a", "user.b", "user.c"])
