"""Configuration settings: text in, typed attributes out, change rules, messages."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect.errors import ERROR_INVALID_PARAMETER, ERROR_INVALID_STATE, CBFSConnectError
from cbfsconnect.settings import SETTINGS, ChangeRule, Setting, Settings

DEFAULTS = {
    "AllowOriginatorBufferMapping": "True",
    "AllowReadOutsideEof": "True",
    "ClusterSize": "4096",
    "CorrectAllocationSizes": "False",
    "FastRenameMove": "True",
    "FileCachePolicyWriteThrough": "False",
    "MaxWorkerThreadCount": "0",
    "MinWorkerThreadCount": "0",
    "SectorSize": "512",
    "SupportUnlockAllRequests": "False",
    "UseFileIds": "False",
    "UserModeFileCacheSize": "0",
    "LoggingEnabled": "False",
    "AsyncDeleteStorageNotifications": "True",
    "DeviceChangeBroadcastsEnabled": "True",
    "PathSeparator": "/",
    "MetadataCacheTimeout": "1.0",
    "StreamSeparator": ":",
    "StreamsInterface": "xattr",
    "RouteMethod": "auto",
    "NtfsAttributes": "False",
    "FireSetFileSizeOnWrite": "True",
    "PosixDelete": "False",
    "SupportExchange": "False",
    "AllowOther": str(os.geteuid() == 0),
    "DefaultPermissions": "True",
    "ReadAhead": "1048576",
    "HandleSignals": "True",
    "MountSource": "cbfs",
}

OTHER_VALUE = {
    "ClusterSize": "8192",
    "SectorSize": "4096",
    "PathSeparator": "\\",
    "StreamSeparator": "|",
    "StreamsInterface": "both",
    "RouteMethod": "positioned",
    "MetadataCacheTimeout": "2.5",
    "MountSource": "my drive, really",
}

all_settings = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


def another_value(setting: Setting) -> str:
    if setting.kind is bool:
        return str(not setting.default)
    return OTHER_VALUE.get(setting.name, "7")


def refusal(text: str, *, active: bool = False, storage: bool = False) -> CBFSConnectError:
    settings = Settings()
    with pytest.raises(CBFSConnectError) as caught:
        settings.configure(text, active=active, storage=storage)
    assert settings == Settings()
    return caught.value


def test_defaults() -> None:
    settings = Settings()
    assert {name: settings.configure(name) for name in SETTINGS} == DEFAULTS


@all_settings
def test_declaration_is_complete(setting: Setting) -> None:
    assert setting.doc.endswith(".")
    assert type(setting.default) is setting.kind
    assert getattr(Settings(), setting.attribute) == setting.default


@all_settings
def test_set_then_get(setting: Setting) -> None:
    settings = Settings()
    value = another_value(setting)
    assert settings.configure(f"{setting.name}={value}") == ""
    assert settings.configure(setting.name) == value
    assert type(getattr(settings, setting.attribute)) is setting.kind


@all_settings
def test_name_in_any_case(setting: Setting) -> None:
    settings = Settings()
    settings.configure(f" {setting.name.upper()} ={another_value(setting)}")
    assert settings.get(setting.name.lower()) == another_value(setting)


@all_settings
def test_change_rule(setting: Setting) -> None:
    allowed = {
        ChangeRule.ANY: {"drive", "media"},
        ChangeRule.ACTIVE: {"drive"},
        ChangeRule.STORAGE: set(),
    }[setting.rule]
    states = {"drive": {"storage": True}, "media": {"storage": True, "active": True}}
    text = f"{setting.name}={another_value(setting)}"
    for state, flags in states.items():
        if state in allowed:
            Settings().configure(text, **flags)
        else:
            error = refusal(text, **flags)
            assert error.code == ERROR_INVALID_STATE
            assert setting.name in error.message
            assert setting.rule.value in error.message


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("SectorSize", ChangeRule.STORAGE),
        ("AllowOriginatorBufferMapping", ChangeRule.STORAGE),
        ("PathSeparator", ChangeRule.STORAGE),
        ("StreamSeparator", ChangeRule.STORAGE),
        ("FireSetFileSizeOnWrite", ChangeRule.STORAGE),
        ("PosixDelete", ChangeRule.STORAGE),
        ("AllowOther", ChangeRule.ACTIVE),
        ("ReadAhead", ChangeRule.ACTIVE),
        ("SupportUnlockAllRequests", ChangeRule.ANY),
    ],
)
def test_rule_of(name: str, rule: ChangeRule) -> None:
    assert SETTINGS[name].rule is rule


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, True) for text in ("True", "true", "TRUE", "1", "Yes", " yes ")]
    + [(text, False) for text in ("False", "false", "0", "No", "NO")],
)
def test_boolean_spellings(text: str, value: bool) -> None:
    settings = Settings(use_file_ids=not value)
    settings.configure(f"UseFileIds={text}")
    assert settings.use_file_ids is value


@pytest.mark.parametrize(
    ("text", "value"), [("65536", 65536), ("0x10000", 65536), ("0XFF", 255), (" 12 ", 12)]
)
def test_integer_spellings(text: str, value: int) -> None:
    settings = Settings()
    settings.configure(f"ReadAhead={text}")
    assert settings.read_ahead == value


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("-1", -1.0), ("1.5", 1.5), ("1e3", 1000.0)]
)
def test_timeout_spellings(text: str, value: float) -> None:
    settings = Settings()
    settings.configure(f"MetadataCacheTimeout={text}")
    assert settings.metadata_cache_timeout == value


def test_a_value_may_hold_an_equals_sign() -> None:
    settings = Settings()
    settings.configure("MountSource=a=b")
    assert settings.mount_source == "a=b"


@pytest.mark.parametrize(
    "text",
    [
        "UseFileIds=",
        "UseFileIds=2",
        "UseFileIds=maybe",
        "ReadAhead=",
        "ReadAhead=-1",
        "ReadAhead=1.5",
        "ReadAhead=1_000",
        "ReadAhead=٣",
        "ReadAhead=" + "9" * 5000,
        "ReadAhead=0x",
        "UserModeFileCacheSize=-1",
        "MaxWorkerThreadCount=1025",
        "SectorSize=0",
        "SectorSize=500",
        "SectorSize=1000",
        "SectorSize=131072",
        "ClusterSize=1000",
        "ClusterSize=-512",
        "MetadataCacheTimeout=-2",
        "MetadataCacheTimeout=nan",
        "MetadataCacheTimeout=inf",
        "MetadataCacheTimeout=1e300",
        "MetadataCacheTimeout=soon",
        "PathSeparator=",
        "PathSeparator=:",
        "PathSeparator=//",
        "StreamSeparator=",
        "StreamSeparator=/",
        "StreamSeparator=\\",
        "StreamSeparator=::",
        "StreamsInterface=none",
        "MountSource=",
        "MountSource=a\0b",
    ],
)
def test_bad_value(text: str) -> None:
    error = refusal(text)
    assert error.code == ERROR_INVALID_PARAMETER
    assert error.message.startswith(text.partition("=")[0] + " takes ")


def test_unknown_name_gets_the_nearest_ones() -> None:
    error = refusal("SectrSize=512")
    assert error.code == ERROR_INVALID_PARAMETER
    assert "SectorSize" in error.message


def test_a_name_like_no_other_gets_the_list() -> None:
    error = refusal("Qqq")
    assert error.code == ERROR_INVALID_PARAMETER
    assert all(name in error.message for name in SETTINGS)


def test_sectors_need_not_be_a_power_of_two() -> None:
    settings = Settings()
    settings.configure("SectorSize=3072")
    assert settings.sector_size == 3072


def test_a_sector_size_raises_the_cluster_size_to_a_multiple() -> None:
    settings = Settings()
    settings.configure("SectorSize=3072")
    assert settings.cluster_size == 6144


def test_a_sector_size_that_divides_the_cluster_size_leaves_it() -> None:
    settings = Settings()
    settings.configure("SectorSize=2048")
    assert settings.cluster_size == 4096


def test_cluster_size_zero_stays_one_sector() -> None:
    settings = Settings()
    settings.configure("ClusterSize=0")
    settings.configure("SectorSize=4096")
    assert settings.cluster_size == 0


def test_cluster_size_follows_the_sector_size_in_force() -> None:
    settings = Settings()
    settings.configure("SectorSize=4096")
    with pytest.raises(CBFSConnectError, match=r"multiple of SectorSize \(4096\)"):
        settings.configure("ClusterSize=6144")


@pytest.mark.parametrize(("uid", "expected"), [(0, "True"), (1000, "False")])
def test_only_root_shares_by_default(
    monkeypatch: pytest.MonkeyPatch, uid: int, expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert Settings().get("AllowOther") == expected


@given(st.text())
def test_any_text_is_answered_or_refused(text: str) -> None:
    # Only CBFSConnectError may come out; which texts are valid is the business of other tests.
    with contextlib.suppress(CBFSConnectError):
        assert isinstance(Settings().configure(text), str)


@given(st.sampled_from(sorted(SETTINGS)), st.text())
def test_what_was_accepted_reads_back_as_the_same_setting(name: str, value: str) -> None:
    settings = Settings()
    try:
        settings.set(name, value)
    except CBFSConnectError:
        return
    again = Settings()
    again.set(name, settings.get(name))
    assert again == settings
