"""The properties of class CBFS: names, defaults, types, and when they may be changed."""

from collections.abc import Iterator
from typing import Any

import pytest

from cbfsconnect import CBFS, CBFSConnectError, MemoryDrive
from cbfsconnect.errors import ERROR_INVALID_PARAMETER, ERROR_INVALID_STATE
from cbfsconnect.properties import Property

ANY, INACTIVE, BEFORE_STORAGE = "at any time", "not while active", "not while the drive exists"

# Name: default, another value, values that are refused, change rule.
EXPECTED: dict[str, tuple[Any, Any, tuple[Any, ...], str]] = {
    "file_cache": (1, 3, (-1, 4, "1", True, 1.0), ANY),
    "file_system_name": ("cbfs", "NTFS", (1, None, b"x"), BEFORE_STORAGE),
    "fire_all_open_close_events": (False, True, ("yes", None, 2), BEFORE_STORAGE),
    "handle_all_fsctls": (False, True, (None,), BEFORE_STORAGE),
    "max_file_name_length": (255, 64, (0, 256, "9"), BEFORE_STORAGE),
    "max_file_path_length": (32767, 260, (0, 32768), BEFORE_STORAGE),
    "max_file_size": ((1 << 63) - 1, 1 << 40, (0, -1, 1.5), BEFORE_STORAGE),
    "metadata_cache_enabled": (True, False, ("no",), INACTIVE),
    "non_existent_files_cache_enabled": (False, True, (None,), ANY),
    "process_restrictions_enabled": (False, True, (None, "yes"), INACTIVE),
    "metadata_cache_size": (0, 1000, (-1, "1", True, 1 << 31), INACTIVE),
    "non_existent_files_cache_size": (0, 1, (-1, None, 1 << 31), ANY),
    "serialize_access": (True, False, (None,), BEFORE_STORAGE),
    "serialize_events": (False, True, ("",), INACTIVE),
    "storage_characteristics": (16, 18, (-1, None, 0x10000, 1 << 20), BEFORE_STORAGE),
    "storage_guid": ("", "{0}", (0,), BEFORE_STORAGE),
    "storage_type": (0, 1, (2, 4, "0"), BEFORE_STORAGE),
    "support_change_time_attribute": (False, True, (None,), BEFORE_STORAGE),
    "support_last_access_time_attribute": (True, False, (None,), BEFORE_STORAGE),
    "support_odx_read_write": (False, True, (None,), INACTIVE),
    "tag": (0, (1 << 64) - 1, ("0", 1 << 64, -1 << 64), ANY),
    "use_alternate_data_streams": (False, True, (None,), INACTIVE),
    "use_case_sensitive_file_names": (False, True, (None,), INACTIVE),
    "use_directory_empty_check": (True, False, (None,), INACTIVE),
    "use_disk_quotas": (False, True, (None,), INACTIVE),
    "use_hard_links": (False, True, (None,), INACTIVE),
    "use_reparse_points": (False, True, (None,), INACTIVE),
    "use_short_file_names": (False, True, (None,), INACTIVE),
    "use_windows_security": (False, True, (None,), INACTIVE),
}
READ_ONLY = ("active", "storage_present", "mounting_point_count")

each = pytest.mark.parametrize("name", EXPECTED)


@pytest.fixture
def cbfs() -> Iterator[CBFS]:
    cbfs = CBFS()
    cbfs.on_get_file_info = MemoryDrive().on_get_file_info
    cbfs.on_enumerate_directory = MemoryDrive().on_enumerate_directory
    cbfs.initialize("{0}")
    yield cbfs
    if cbfs.storage_present:
        cbfs.delete_storage(True)


def refused(code: int, cbfs: CBFS, name: str, value: Any) -> None:
    before = getattr(cbfs, name)
    for change in (setattr, set_):
        with pytest.raises(CBFSConnectError, match=name) as caught:
            change(cbfs, name, value)
        assert caught.value.code == code
    assert getattr(cbfs, name) == before


def set_(cbfs: CBFS, name: str, value: Any) -> None:
    getattr(cbfs, f"set_{name}")(value)


def get(cbfs: CBFS, name: str) -> Any:
    return getattr(cbfs, f"get_{name}")()


def test_the_table_is_complete() -> None:
    declared = {name for name in dir(CBFS) if isinstance(getattr(CBFS, name), Property)}
    assert declared <= EXPECTED.keys(), "add it to the table"
    assert declared >= EXPECTED.keys()


@each
def test_a_property_is_three_members(cbfs: CBFS, name: str) -> None:
    default, other, _, _ = EXPECTED[name]
    assert get(cbfs, name) == getattr(cbfs, name) == default
    assert type(getattr(cbfs, name)) is type(default)
    set_(cbfs, name, other)
    assert get(cbfs, name) == getattr(cbfs, name) == other
    setattr(cbfs, name, default)
    assert get(cbfs, name) == getattr(cbfs, name) == default
    assert getattr(CBFS(), name) == default


@each
def test_a_value_that_is_none_is_refused(cbfs: CBFS, name: str) -> None:
    for value in EXPECTED[name][2]:
        refused(ERROR_INVALID_PARAMETER, cbfs, name, value)


@pytest.mark.parametrize("name", [n for n, e in EXPECTED.items() if e[0] in (True, False)])
def test_numbers_stand_for_booleans_as_in_programs_for_windows(cbfs: CBFS, name: str) -> None:
    if type(EXPECTED[name][0]) is not bool:
        return
    set_(cbfs, name, 1)
    assert getattr(cbfs, name) is True
    set_(cbfs, name, 0)
    assert getattr(cbfs, name) is False


@each
def test_when_a_property_may_change(cbfs: CBFS, name: str) -> None:
    _, other, _, rule = EXPECTED[name]
    cbfs.create_storage()
    if rule == BEFORE_STORAGE:
        refused(ERROR_INVALID_STATE, cbfs, name, other)
    else:
        set_(cbfs, name, other)
        set_(cbfs, name, EXPECTED[name][0])
    cbfs.mount_media(0)
    if rule == ANY:
        set_(cbfs, name, other)
    else:
        refused(ERROR_INVALID_STATE, cbfs, name, other)
    cbfs.delete_storage(False)
    set_(cbfs, name, other)


@each
def test_nothing_changes_inside_a_handler(cbfs: CBFS, name: str) -> None:
    caught: list[int] = []

    def on_mount(params: Any) -> None:
        try:
            set_(cbfs, name, EXPECTED[name][1])
        except CBFSConnectError as error:
            caught.append(error.code)

    cbfs.on_mount = on_mount
    cbfs.create_storage()
    cbfs.mount_media(0)
    assert caught == [ERROR_INVALID_STATE]
    assert getattr(cbfs, name) == EXPECTED[name][0]


@pytest.mark.parametrize("name", READ_ONLY)
def test_state_is_read_only(cbfs: CBFS, name: str) -> None:
    assert get(cbfs, name) == getattr(cbfs, name)
    with pytest.raises(AttributeError):
        setattr(cbfs, name, 1)
    assert not hasattr(cbfs, f"set_{name}")


# --- settings ---------------------------------------------------------------------------


@pytest.mark.proves("config")
def test_config_reads_and_sets(cbfs: CBFS) -> None:
    assert cbfs.config("SectorSize") == "512"
    assert cbfs.config("SectorSize=4096") == ""
    assert cbfs.config("sectorsize") == "4096"
    for text in ("True", "1", "yes"):
        cbfs.config("FileCachePolicyWriteThrough=False")
        cbfs.config(f"FileCachePolicyWriteThrough={text}")
        assert cbfs.config("FileCachePolicyWriteThrough") == "True"


@pytest.mark.parametrize("text", ["NoSuchSetting", "NoSuchSetting=1", "SectorSize=1", ""])
def test_config_refuses_what_it_does_not_know(cbfs: CBFS, text: str) -> None:
    with pytest.raises(CBFSConnectError) as caught:
        cbfs.config(text)
    assert caught.value.code == ERROR_INVALID_PARAMETER


@pytest.mark.parametrize(
    ("text", "with_drive", "with_media"),
    [
        ("SectorSize=512", False, False),
        ("MaxWorkerThreadCount=4", True, False),
        ("MetadataCacheTimeout=2", True, True),
    ],
)
def test_settings_change_by_their_rules(
    cbfs: CBFS, text: str, with_drive: bool, with_media: bool
) -> None:
    def check(may_change: bool) -> None:
        if may_change:
            assert cbfs.config(text) == ""
            return
        with pytest.raises(CBFSConnectError) as caught:
            cbfs.config(text)
        assert caught.value.code == ERROR_INVALID_STATE

    check(True)
    cbfs.create_storage()
    check(with_drive)
    cbfs.mount_media(0)
    check(with_media)
    cbfs.delete_storage(False)
    check(True)
