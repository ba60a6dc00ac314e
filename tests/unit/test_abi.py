"""The protocol's layouts and numbers against those of the kernel's header."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from cbfsconnect.fuse import abi
from cbfsconnect.fuse.abi import InitFlag, NotifyCode, Opcode, layout

Struct = type[tuple[Any, ...]]

# sizeof, counted by hand from the header of protocol 7.45
SIZES = {
    "fuse_attr": 88,
    "fuse_sx_time": 16,
    "fuse_statx": 256,
    "fuse_kstatfs": 80,
    "fuse_file_lock": 24,
    "fuse_entry_out": 128,
    "fuse_forget_in": 8,
    "fuse_forget_one": 16,
    "fuse_batch_forget_in": 8,
    "fuse_getattr_in": 16,
    "fuse_attr_out": 104,
    "fuse_statx_in": 24,
    "fuse_statx_out": 288,
    "fuse_mknod_in": 16,
    "fuse_mkdir_in": 8,
    "fuse_rename_in": 8,
    "fuse_rename2_in": 16,
    "fuse_link_in": 8,
    "fuse_setattr_in": 88,
    "fuse_open_in": 8,
    "fuse_create_in": 16,
    "fuse_open_out": 16,
    "fuse_release_in": 24,
    "fuse_flush_in": 24,
    "fuse_read_in": 40,
    "fuse_write_in": 40,
    "fuse_write_out": 8,
    "fuse_statfs_out": 80,
    "fuse_fsync_in": 16,
    "fuse_setxattr_in": 16,
    "fuse_getxattr_in": 8,
    "fuse_getxattr_out": 8,
    "fuse_lk_in": 48,
    "fuse_lk_out": 24,
    "fuse_access_in": 8,
    "fuse_init_in": 64,
    "fuse_init_out": 64,
    "cuse_init_in": 16,
    "cuse_init_out": 72,
    "fuse_interrupt_in": 8,
    "fuse_bmap_in": 16,
    "fuse_bmap_out": 8,
    "fuse_ioctl_in": 32,
    "fuse_ioctl_iovec": 16,
    "fuse_ioctl_out": 16,
    "fuse_poll_in": 24,
    "fuse_poll_out": 8,
    "fuse_notify_poll_wakeup_out": 8,
    "fuse_fallocate_in": 32,
    "fuse_in_header": 40,
    "fuse_out_header": 16,
    "fuse_dirent": 24,
    "fuse_direntplus": 152,
    "fuse_notify_inval_inode_out": 24,
    "fuse_notify_inval_entry_out": 16,
    "fuse_notify_delete_out": 24,
    "fuse_notify_store_out": 24,
    "fuse_notify_retrieve_out": 32,
    "fuse_notify_retrieve_in": 40,
    "fuse_notify_prune_out": 16,
    "fuse_backing_map": 16,
    "fuse_lseek_in": 24,
    "fuse_lseek_out": 8,
    "fuse_copy_file_range_in": 56,
    "fuse_copy_file_range_out": 8,
    "fuse_setupmapping_in": 40,
    "fuse_removemapping_in": 4,
    "fuse_removemapping_one": 16,
    "fuse_syncfs_in": 8,
    "fuse_secctx": 8,
    "fuse_secctx_header": 8,
    "fuse_ext_header": 8,
    "fuse_supp_groups": 4,
    "fuse_uring_ent_in_out": 32,
    "fuse_uring_req_header": 288,
    "fuse_uring_cmd_req": 24,
}


def documented_structs() -> dict[str, Struct]:
    """Struct classes of the module by the C name in their docstring."""
    found = {}
    for value in vars(abi).values():
        match = re.match(r"``struct (\w+)``", getattr(value, "__doc__", None) or "")
        if match:
            found[match[1]] = value
    return found


STRUCTS = documented_structs()

# Where a field is called otherwise in C: those structs are written out here.
LOCK_FIELDS = {name: f"lk.{name}" for name in ("start", "end", "type", "pid")}
TIME_FIELDS = {
    f"{time}{ours}": f"{time}.{theirs}"
    for time in ("atime", "btime", "ctime", "mtime")
    for ours, theirs in (("", "tv_sec"), ("_nsec", "tv_nsec"))
}
C_FIELDS = {"fuse_lk_in": LOCK_FIELDS, "fuse_lk_out": LOCK_FIELDS, "fuse_statx": TIME_FIELDS}


def field_offsets(cls: Struct) -> dict[str, int]:
    offsets, position = {}, 0
    for name, hint in get_type_hints(cls, include_extras=True).items():
        offsets[name] = position
        if get_origin(hint) is Annotated:
            position += struct.calcsize("=" + get_args(hint)[1])
        else:
            position += layout(hint).size
    return offsets


def test_every_struct_has_a_known_size() -> None:
    assert {name: layout(cls).size for name, cls in STRUCTS.items()} == SIZES


def test_compat_setxattr_is_the_beginning_of_the_whole_struct() -> None:
    assert layout(abi.SetxattrInCompat).size == 8
    assert abi.SetxattrIn._fields[:2] == abi.SetxattrInCompat._fields


@pytest.mark.parametrize("cls", STRUCTS.values(), ids=STRUCTS)
def test_fields_are_naturally_aligned(cls: Struct) -> None:
    """The header pads by hand; a field off its alignment would be a slip in our table."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        size = 8
        if get_origin(hint) is Annotated:
            size = min(8, struct.calcsize("=" + get_args(hint)[1].lstrip("0123456789")[0]))
        elif "Q" not in layout(hint).format:
            size = 4
        assert field_offsets(cls)[name] % size == 0, name


def test_a_struct_packs_what_it_contains_in_place() -> None:
    attr = abi.Attr(*range(16))
    packed = layout(abi.AttrOut).pack(1, 2, 3, *attr)
    assert packed == struct.pack("=QII6Q10I", 1, 2, 3, *range(16))


def test_spare_words_appear_in_no_tuple() -> None:
    assert layout(abi.InitIn).unpack(bytes(range(64))) == struct.unpack("=5I", bytes(range(20)))


def test_init_flags_are_distinct_single_bits() -> None:
    assert sorted(flag.value for flag in InitFlag) == [1 << bit for bit in range(43)]


def test_opcodes_and_notify_codes() -> None:
    gaps = {7, 19}
    small = {int(code) for code in Opcode if code < 4096}
    assert small == set(range(1, 54)) - gaps
    assert sorted(NotifyCode) == list(range(1, 10))
    assert Opcode.CUSE_INIT_BSWAP_RESERVED == Opcode.CUSE_INIT << 8
    assert Opcode.INIT_BSWAP_RESERVED == Opcode.INIT << 24


def test_device_ioctls() -> None:
    assert abi.DEV_IOC_CLONE == 0x8004E500
    assert abi.DEV_IOC_BACKING_OPEN == 0x4010E501
    assert abi.DEV_IOC_BACKING_CLOSE == 0x4004E502
    assert abi.DEV_IOC_SYNC_INIT == 0xE503


# --- against the header that is installed here, which may be older than ours -----------------


def preprocessed_header() -> str:
    command = ["gcc", "-E", "-P", "-x", "c", "-"]
    source = "#include <linux/fuse.h>\n"
    return subprocess.run(command, input=source, text=True, capture_output=True, check=True).stdout


def struct_bodies(header: str) -> dict[str, str]:
    return dict(re.findall(r"struct (\w+) \{(.*?)\};", header, re.DOTALL))


def plain_constants() -> dict[str, int]:
    numbers = {
        name: value
        for name, value in vars(abi).items()
        if name.isupper() and type(value) is int and not name.startswith("_")
    }
    ours = {"KERNEL_MAJOR", "KERNEL_MINOR", "MINOR_MIN", "COMPAT_INIT_IN_SIZE"}
    return {name: value for name, value in numbers.items() if name not in ours}


def c_names(name: str) -> list[str]:
    unprefixed = name.startswith(("FATTR_", "FOPEN_", "CUSE_"))
    return [name if unprefixed else f"FUSE_{name}"]


def questions(header: str) -> dict[str, int]:
    """C expressions that the installed header knows, with the values that our table gives."""
    expected = {}
    for c_name, body in struct_bodies(header).items():
        cls = STRUCTS.get(c_name)
        if cls is None:
            continue
        expected[f"sizeof(struct {c_name})"] = SIZES[c_name]
        for field, offset in field_offsets(cls).items():
            path = C_FIELDS.get(c_name, {}).get(field, field)
            if re.search(rf"\b{path.split('.')[0]}\b", body):
                expected[f"offsetof(struct {c_name}, {path})"] = offset
    enums = {**{c.name: c for c in Opcode}, **{f"NOTIFY_{c.name}": c for c in NotifyCode}}
    for name, code in enums.items():
        c_name = name if name.startswith("CUSE") else f"FUSE_{name}"
        if re.search(rf"\b{c_name} *=", header):
            expected[c_name] = int(code)
    return expected


def c_program(expressions: dict[str, int]) -> str:
    lines = ["#include <linux/fuse.h>", "#include <stddef.h>", "#include <stdio.h>"]
    lines += ["#include <sys/ioctl.h>", "#define SHOW(text, x) "]
    lines[-1] += 'printf("%s=%llu\\n", text, (unsigned long long)(x))'
    lines.append("int main(void) {")
    lines += [f'SHOW("{text}", {text});' for text in expressions]
    macros = {**plain_constants(), **{flag.name or "": flag.value for flag in InitFlag}}
    for name in macros:
        for c_name in c_names(name):
            lines += [f"#ifdef {c_name}", f'SHOW("{c_name}", {c_name});', "#endif"]
    return "\n".join([*lines, "return 0; }", ""])


def macro_values() -> dict[str, int]:
    macros = {**plain_constants(), **{flag.name or "": flag.value for flag in InitFlag}}
    return {c_name: value for name, value in macros.items() for c_name in c_names(name)}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc (apt install gcc libc6-dev)")
def test_against_the_installed_header(tmp_path: Path) -> None:
    expected = questions(preprocessed_header())
    program = tmp_path / "layout"
    command = ["gcc", "-x", "c", "-o", str(program), "-"]
    subprocess.run(command, input=c_program(expected), text=True, check=True)
    output = subprocess.run([str(program)], text=True, capture_output=True, check=True).stdout
    answers = {}
    for line in output.splitlines():
        text, _, value = line.rpartition("=")
        answers[text] = int(value)
    expected.update({name: v for name, v in macro_values().items() if name in answers})
    # (1 << 31) is a negative int in C, which the kernel's header leaves so.
    signed = {"FUSE_INIT_RESERVED"}
    assert {k: v & 0xFFFFFFFF if k in signed else v for k, v in answers.items()} == expected
    assert len(expected) > 400
