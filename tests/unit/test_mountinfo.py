"""The parser of mountinfo and the lookups of paths in it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect.fuse import mountinfo
from cbfsconnect.fuse.mountinfo import MountEntry, entries_below, entry_at, entry_for, parse

SAMPLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,discard shared:1 - ext4 /dev/vda rw,resuid=65534
42 27 0:39 /sub /mnt/a\\040b\\011c\\012d\\134e\\043f ro,nosuid,nodev shared:7 \
master:2 - fuse.cbfs x\\040y rw,user_id=1000,group_id=100,allow_other
"""


def line(mount_id: int, parent_id: int, mount_point: str, fstype: str = "ext4") -> str:
    return f"{mount_id} {parent_id} 0:{mount_id} / {mount_point} rw - {fstype} none rw\n"


def ids(found: list[MountEntry]) -> list[int]:
    return [entry.mount_id for entry in found]


def id_at(path: str, text: str) -> int | None:
    entry = entry_at(path, parse(text))
    return None if entry is None else entry.mount_id


def id_for(path: str, text: str) -> int | None:
    entry = entry_for(path, parse(text))
    return None if entry is None else entry.mount_id


def test_every_field_of_a_line() -> None:
    assert parse(SAMPLE)[2] == MountEntry(
        mount_id=42,
        parent_id=27,
        device="0:39",
        root="/sub",
        mount_point="/mnt/a b\tc\nd\\e#f",
        options=("ro", "nosuid", "nodev"),
        optional_fields=("shared:7", "master:2"),
        fstype="fuse.cbfs",
        source="x y",
        super_options=("rw", "user_id=1000", "group_id=100", "allow_other"),
    )


def test_lines_keep_their_order_and_optional_fields_may_lack() -> None:
    found = parse(SAMPLE)
    assert ids(found) == [22, 27, 42]
    assert [len(entry.optional_fields) for entry in found] == [0, 1, 2]


def test_a_mount_point_named_as_the_separator_does_not_end_the_optional_fields() -> None:
    (entry,) = parse("5 1 0:5 - /- rw shared:1 - fuse - rw\n")
    assert (entry.root, entry.mount_point, entry.source) == ("-", "/-", "-")


def test_an_empty_source_is_kept_apart_from_the_options() -> None:
    (entry,) = parse("5 1 0:5 / /m rw - fuse.cbfs  rw\n")
    assert (entry.source, entry.super_options) == ("", ("rw",))


def test_bytes_that_are_not_utf8_and_line_breaks_of_other_systems_stay_in_names() -> None:
    (entry,) = parse(b"5 1 0:5 / /m\xff\r\x0c\\303x rw - fuse s rw\n")
    assert os.fsencode(entry.mount_point) == b"/m\xff\r\x0c\xc3x"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "1 2 0:3 / /m rw fuse s rw",
        "x 2 0:3 / /m rw - fuse s rw",
        "1 y 0:3 / /m rw - fuse s rw",
        "1 2 0:3 / /m rw - fuse s",
        "1 2 0:3 / - fuse s rw",
    ],
)
def test_a_malformed_line_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a line of mountinfo") as caught:
        parse(SAMPLE + text + "\n")
    assert text in str(caught.value)


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_name_the_kernel_can_escape_is_read_back(name: bytes) -> None:
    escaped = b"".join(b"\\%03o" % c if c in b" \t\n\\#" else bytes([c]) for c in name)
    (entry,) = parse(b"5 1 0:5 / /" + escaped + b" rw - fuse " + escaped + b" rw\n")
    assert os.fsencode(entry.mount_point) == b"/" + name
    assert os.fsencode(entry.source) == name


@given(st.binary())
def test_no_text_raises_anything_but_valueerror(text: bytes) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "not a line of mountinfo" in str(error)  # noqa: PT017 - most texts raise, not all


@pytest.mark.parametrize(
    ("fstype", "expected"),
    [
        ("fuse", True),
        ("fuse.cbfs", True),
        ("fuseblk", True),
        ("fuseblk.ntfs", True),
        ("fusectl", False),
        ("ext4", False),
    ],
)
def test_fuse_filesystems_are_told_from_others(fstype: str, expected: bool) -> None:
    (entry,) = parse(line(5, 1, "/m", fstype))
    assert entry.is_fuse is expected


def test_super_option_gives_values_and_tells_bare_options_from_absent_ones() -> None:
    entry = parse(SAMPLE)[2]
    assert entry.super_option("user_id") == "1000"
    assert entry.super_option("allow_other") == ""
    assert entry.super_option("default_permissions") is None
    assert entry.super_option("user") is None


ROOT = line(1, 0, "/")


def test_entry_at_wants_the_very_path() -> None:
    text = ROOT + line(2, 1, "/a/b")
    assert id_at("/a/b", text) == 2
    assert id_at("/a/b/", text) == 2
    assert id_at("/", text) == 1
    assert id_at("/a", text) is None
    assert id_at("/a/b/c", text) is None
    assert id_at("/a/bc", text) is None


def test_entry_for_goes_by_whole_names() -> None:
    text = ROOT + line(2, 1, "/a") + line(3, 2, "/a/b")
    assert id_for("/a/b/c", text) == 3
    assert id_for("/a/bc", text) == 2
    assert id_for("/ab", text) == 1
    assert id_for("/", text) == 1


def test_of_stacked_mounts_the_topmost_is_found_whatever_the_order_of_lines() -> None:
    stack = [line(2, 1, "/a"), line(3, 2, "/a"), line(4, 3, "/a")]
    assert id_at("/a", ROOT + "".join(stack)) == 4
    assert id_at("/a", "".join(reversed(stack)) + ROOT) == 4


def test_a_mount_hidden_by_one_over_its_parent_directory_is_not_found() -> None:
    text = ROOT + line(2, 1, "/a/b") + line(3, 1, "/a")
    assert id_at("/a/b", text) is None
    assert id_for("/a/b/c", text) == 3


def test_a_mount_inside_the_hiding_one_is_found() -> None:
    text = ROOT + line(2, 1, "/a/b") + line(3, 1, "/a") + line(4, 3, "/a/b")
    assert id_at("/a/b", text) == 4


def test_a_chroot_that_is_no_mount_itself() -> None:
    text = line(2, 9, "/a") + line(3, 2, "/a/b")
    assert id_at("/a/b", text) == 3
    assert id_for("/c", text) is None


def test_a_mount_that_is_its_own_parent_ends_the_walk() -> None:
    assert id_for("/a", line(1, 1, "/") + line(2, 1, "/a")) == 2


def test_entries_below_leaves_out_the_path_itself_and_namesakes() -> None:
    text = ROOT + line(2, 1, "/a") + line(3, 2, "/a/b") + line(4, 1, "/ab")
    assert ids(entries_below("/a", parse(text))) == [3]
    assert ids(entries_below("/", parse(text))) == [2, 3, 4]


def test_mount_points_of_a_device_include_bind_mounts() -> None:
    bound = "7 1 0:2 / /other rw - ext4 none rw\n"
    found = mountinfo.mount_points_of("0:2", parse(ROOT + line(2, 1, "/a") + bound))
    assert found == ["/a", "/other"]
    assert mountinfo.mount_points_of("0:99", parse(ROOT)) == []


def test_the_live_list_is_read_when_none_is_given() -> None:
    found = entry_at("/proc")
    assert found is not None
    assert found.fstype == "proc"
    assert found in mountinfo.entries()
    assert entry_for("/proc/self/status") == found
    assert found.device in {f"{os.major(d)}:{os.minor(d)}" for d in [os.stat("/proc").st_dev]}
