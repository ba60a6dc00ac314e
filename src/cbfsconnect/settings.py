"""Configuration settings: what `CBFS.config("Name=Value")` reads and changes.

Each setting is declared once, as a field of `Settings`, with its default, its change rule and its
documentation. The engine reads the fields as plain attributes (`settings.sector_size`); programs
see strings under the documented names (`SectorSize`).

Names, kinds and rules come from the documentation of CBFS Connect 2020 where it shows them. Where
it does not, the defaults are ours; settings marked "Linux" are our own.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from .errors import ERROR_INVALID_PARAMETER, ERROR_INVALID_STATE, CBFSConnectError

MAX_SECTOR_SIZE: Final = 64 * 1024
MAX_CLUSTER_SIZE: Final = 2 * 1024 * 1024
MAX_READ_AHEAD: Final = 1024 * 1024 * 1024
MAX_WORKERS: Final = 1024
MAX_TIMEOUT_S: Final = 1e9
"""Some thirty years, and within what the kernel takes."""

SettingValue = bool | int | float | str


class ChangeRule(Enum):
    """When a setting may be changed; the value says it in an error message."""

    ANY = "at any time"
    ACTIVE = "only while no media is mounted: call unmount_media first"
    STORAGE = "only before create_storage: call delete_storage first"


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting."""

    name: str
    attribute: str
    kind: type[SettingValue]
    default: SettingValue
    rule: ChangeRule
    doc: str


# --- checks: each returns the value, or raises ValueError with what is expected ---

_Check = Callable[[Any], SettingValue]


def _between(low: int, high: int) -> _Check:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"a number from {low} to {high}")
        return value

    return check


def _at_least_zero(value: int) -> int:
    if value < 0:
        raise ValueError("a number that is not negative")
    return value


def _one_of(*choices: str) -> _Check:
    def check(value: str) -> str:
        for choice in choices:
            if value.strip().lower() == choice:
                return choice
        raise ValueError("one of " + ", ".join(choices))

    return check


def _sector_size(value: int) -> int:
    if value % 512 or not 512 <= value <= MAX_SECTOR_SIZE:
        raise ValueError(f"a multiple of 512 from 512 to {MAX_SECTOR_SIZE}")
    return value


def _seconds_or_for_ever(value: float) -> float:
    # Written so that NaN fails too.
    if not (value == -1 or 0 <= value <= MAX_TIMEOUT_S):
        raise ValueError("seconds, or -1 for ever")
    return value


def _stream_separator(value: str) -> str:
    if len(value) != 1 or value in "/\\.":
        raise ValueError("one character, none of / \\ and .")
    return value


def _mount_source(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("a name that is not empty and holds no NUL")
    return value


# --- declarations ---


def _setting(
    default: SettingValue, rule: ChangeRule, doc: str, check: _Check | None = None
) -> Any:  # Any, as dataclasses.field() itself: the annotation of the field gives the type
    return field(default=default, metadata={"rule": rule, "doc": doc, "check": check})


@dataclass(kw_only=True)
class Settings:
    """The configuration of one drive.

    The attributes hold valid values, always; `get`, `set` and `configure` are the textual face of
    them. Whoever writes an attribute directly goes round checks and change rules.
    """

    allow_originator_buffer_mapping: bool = _setting(
        True,
        ChangeRule.STORAGE,
        "Handlers may be given the caller's own buffer. Accepted for ported programs; on Linux a "
        "buffer is always the server's.",
    )
    allow_read_outside_eof: bool = _setting(
        True,
        ChangeRule.ANY,
        "Reads past the end of a file reach on_read_file. Off: the library cuts them off, and asks "
        "for the size first where it does not know it.",
    )
    cluster_size: int = _setting(
        4096,
        ChangeRule.STORAGE,
        "Allocation unit in bytes: a multiple of SectorSize, or 0 for one sector. A new SectorSize "
        "that does not divide it raises it to the next multiple.",
        _between(0, MAX_CLUSTER_SIZE),
    )
    correct_allocation_sizes: bool = _setting(
        False,
        ChangeRule.ANY,
        "Accepted for ported programs; on Linux no allocation size is ever corrected.",
    )
    fast_rename_move: bool = _setting(
        True,
        ChangeRule.ANY,
        "Open handles stay open across a rename. Off: they are closed before "
        "on_rename_or_move_file and opened again after it.",
    )
    file_cache_policy_write_through: bool = _setting(
        False,
        ChangeRule.ACTIVE,
        "on_write_file fires at once. Off: written data may stay in the cache and come later.",
    )
    max_worker_thread_count: int = _setting(
        0,
        ChangeRule.ACTIVE,
        "Most threads that run handlers, 0 for a choice by load. Needs serialize_events off.",
        _between(0, MAX_WORKERS),
    )
    min_worker_thread_count: int = _setting(
        0,
        ChangeRule.ACTIVE,
        "Fewest threads that run handlers, 0 for a choice by load. The maximum wins over it.",
        _between(0, MAX_WORKERS),
    )
    sector_size: int = _setting(
        512,
        ChangeRule.STORAGE,
        "Sector size in bytes, the unit of on_get_volume_size: a multiple of 512.",
        _sector_size,
    )
    support_unlock_all_requests: bool = _setting(
        False,
        ChangeRule.ANY,
        "on_unlock_file may ask with offset and length -1 for the release of all ranges at once.",
    )
    use_file_ids: bool = _setting(
        False,
        ChangeRule.ACTIVE,
        "File IDs given by handlers last, and on_get_file_name_by_file_id finds their names.",
    )
    user_mode_file_cache_size: int = _setting(
        0,
        ChangeRule.ACTIVE,
        "Accepted for ported programs; on Linux the kernel decides how much it caches.",
        _at_least_zero,
    )
    logging_enabled: bool = _setting(
        False,
        ChangeRule.ANY,
        "Accepted for ported programs; what is logged is up to the logger named cbfsconnect.",
    )
    async_delete_storage_notifications: bool = _setting(
        True,
        ChangeRule.ANY,
        "Accepted for ported programs; Linux has nobody who would have to be told.",
    )
    device_change_broadcasts_enabled: bool = _setting(
        True,
        ChangeRule.ANY,
        "Accepted for ported programs; programs that watch mounts are told by the kernel.",
    )
    path_separator: str = _setting(
        "/",
        ChangeRule.STORAGE,
        "Linux. What separates the names in the paths that handlers see: / or \\.",
        _one_of("/", "\\"),
    )
    metadata_cache_timeout: float = _setting(
        1.0,
        ChangeRule.ANY,
        "Linux. Seconds for which the kernel keeps names and attributes; -1 for ever, 0 never.",
        _seconds_or_for_ever,
    )
    stream_separator: str = _setting(
        ":",
        ChangeRule.STORAGE,
        "Linux. The character between a file's name and the name of a stream in it.",
        _stream_separator,
    )
    streams_interface: str = _setting(
        "xattr",
        ChangeRule.ACTIVE,
        "Linux. How programs reach named streams: xattr (as user.NAME), windows (as file:NAME), "
        "or both.",
        _one_of("xattr", "windows", "both"),
    )
    ntfs_attributes: bool = _setting(
        False,
        ChangeRule.ACTIVE,
        "Linux. Programs may use system.ntfs_attrib, system.ntfs_times and system.ntfs_crtime. "
        "Where a property needs extended attributes they may anyhow.",
    )
    route_method: str = _setting(
        "auto",
        ChangeRule.ACTIVE,
        "Linux. How data of routed files is moved: auto lets the kernel do it as root where it is "
        "seen that the drive will route; passthrough takes that for granted; positioned reads and "
        "writes for the kernel.",
        _one_of("auto", "passthrough", "positioned"),
    )
    fire_set_file_size_on_write: bool = _setting(
        True,
        ChangeRule.STORAGE,
        "Linux. on_set_file_size fires before a write that makes a file longer.",
    )
    posix_delete: bool = _setting(
        False,
        ChangeRule.STORAGE,
        "Linux. A removed name goes at once: on_delete_file fires at unlink, and at a rename over "
        "it, even while the item is open; later events of the open item carry its file_context "
        "and last name.",
    )
    support_exchange: bool = _setting(
        False,
        ChangeRule.STORAGE,
        "Linux. on_rename_or_move_file can swap two names: renameat2(2) with RENAME_EXCHANGE is "
        "passed on, with exchange True.",
    )
    allow_other: bool = field(
        default_factory=lambda: os.geteuid() == 0,
        metadata={
            "rule": ChangeRule.ACTIVE,
            "doc": "Linux. Users other than the one who mounts may use the drive. Default True "
            "for root. Others need user_allow_other in /etc/fuse.conf.",
        },
    )
    default_permissions: bool = _setting(
        True,
        ChangeRule.ACTIVE,
        "Linux. The kernel checks access by mode and owner. Off: the handlers do it.",
    )
    read_ahead: int = _setting(
        1024 * 1024,
        ChangeRule.ACTIVE,
        "Linux. Bytes that the kernel reads ahead of a sequential reader.",
        _between(0, MAX_READ_AHEAD),
    )
    handle_signals: bool = _setting(
        True, ChangeRule.ACTIVE, "Linux. SIGINT and SIGTERM unmount the drive cleanly."
    )
    mount_source: str = _setting(
        "cbfs",
        ChangeRule.ACTIVE,
        "Linux. What df and mount show as the device of the drive.",
        _mount_source,
    )

    def get(self, name: str) -> str:
        """Return the value of the setting *name* (in any case) as text.

        Raises CBFSConnectError (ERROR_INVALID_PARAMETER) for a name that does not exist.
        """
        return str(getattr(self, _find(name).attribute))

    def set(self, name: str, value: str, *, active: bool = False, storage: bool = False) -> None:
        """Change the setting *name* (in any case) to the *value* given as text.

        *active* says that media is mounted, *storage* that the drive exists. Raises
        CBFSConnectError: ERROR_INVALID_PARAMETER for an unknown name or a bad value,
        ERROR_INVALID_STATE for a setting that may not change now. Nothing is changed then.
        """
        setting = _find(name)
        _may_change(setting, active=active, storage=storage)
        try:
            parsed = self._checked(setting, value)
        except ValueError as error:
            raise CBFSConnectError(
                ERROR_INVALID_PARAMETER, f"{setting.name} takes {error}, not {value!r}"
            ) from None
        setattr(self, setting.attribute, parsed)
        if setting.attribute == "sector_size":
            self.cluster_size = -(-self.cluster_size // self.sector_size) * self.sector_size

    def configure(self, text: str, *, active: bool = False, storage: bool = False) -> str:
        """Do what `CBFS.config` does: `"Name"` returns a value, `"Name=Value"` sets it.

        Setting returns an empty string. Errors and the two flags: see `set`.
        """
        name, assignment, value = text.partition("=")
        if not assignment:
            return self.get(name.strip())
        self.set(name.strip(), value, active=active, storage=storage)
        return ""

    def _checked(self, setting: Setting, text: str) -> SettingValue:
        value = _PARSERS[setting.kind](text)
        check = _CHECKS.get(setting.attribute)
        if check is not None:
            value = check(value)
        if setting.attribute == "cluster_size" and int(value) % self.sector_size:
            raise ValueError(f"a multiple of SectorSize ({self.sector_size}), or 0")
        return value


# --- text ---


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes"):
        return True
    if word in ("false", "0", "no"):
        return False
    raise ValueError("True or False")


def _parse_int(text: str) -> int:
    word = text.strip().lower()
    # The length is bounded because int() refuses very long numbers with a message of its own.
    if re.fullmatch(r"[+-]?[0-9]{1,30}", word):
        return int(word)
    if re.fullmatch(r"0x[0-9a-f]{1,30}", word):
        return int(word, 16)
    raise ValueError("a whole number, decimal or 0x...")


def _parse_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("a number")
    return value


_PARSERS: dict[type[SettingValue], Callable[[str], SettingValue]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
    str: str,
}


# --- the table of declarations ---


def _declare(item: dataclasses.Field[Any]) -> Setting:
    name = "".join(word.capitalize() for word in item.name.split("_"))
    default = item.default
    if default is dataclasses.MISSING:
        default = getattr(Settings(), item.name)
    assert isinstance(item.type, type)
    rule, doc = item.metadata["rule"], item.metadata["doc"]
    return Setting(name, item.name, item.type, default, rule, doc)


_CHECKS: dict[str, _Check] = {
    item.name: item.metadata["check"]
    for item in dataclasses.fields(Settings)
    if item.metadata.get("check") is not None
}

SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {setting.name: setting for setting in map(_declare, dataclasses.fields(Settings))}
)
"""All settings by name."""

_BY_FOLDED_NAME = {name.lower(): setting for name, setting in SETTINGS.items()}


def _find(name: str) -> Setting:
    setting = _BY_FOLDED_NAME.get(name.lower())
    if setting is not None:
        return setting
    close = difflib.get_close_matches(name.lower(), _BY_FOLDED_NAME, n=3)
    hint = " or ".join(_BY_FOLDED_NAME[match].name for match in close)
    advice = f"did you mean {hint}?" if hint else "the settings are " + ", ".join(SETTINGS)
    raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"there is no setting named {name!r}; {advice}")


def _may_change(setting: Setting, *, active: bool, storage: bool) -> None:
    refused = (setting.rule is ChangeRule.STORAGE and storage) or (
        setting.rule is ChangeRule.ACTIVE and active
    )
    if refused:
        raise CBFSConnectError(
            ERROR_INVALID_STATE, f"{setting.name} can be changed {setting.rule.value}"
        )
