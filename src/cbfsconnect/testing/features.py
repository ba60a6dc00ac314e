"""What a drive claims to have: read from its handlers and properties.

What it does not claim is no failure. Each feature that is missing is said with its reason.
"""

from __future__ import annotations

from cbfsconnect.cbfs import CBFS
from cbfsconnect.constants import STGC_READONLY_DEVICE

_HANDLERS: dict[str, tuple[str, ...]] = {
    "create": ("on_create_file",),
    "write": ("on_create_file", "on_write_file"),
    "truncate": ("on_set_file_size",),
    "delete": ("on_delete_file",),
    "rename": ("on_rename_or_move_file",),
    "attributes": ("on_set_file_attributes",),
    "hard links": ("on_create_hard_link",),
    "hard link names": ("on_enumerate_hard_links",),
    "symbolic links": ("on_create_file", "on_set_reparse_point", "on_get_reparse_point"),
    "special files": ("on_create_file",),
    "streams": ("on_create_file", "on_write_file"),
    "stream names": ("on_enumerate_named_streams",),
    "size of the drive": ("on_get_volume_size",),
    "locks": ("on_lock_file",),
    "offloaded copies": ("on_offload_read_file", "on_offload_write_file"),
}
_PROPERTIES = {
    "hard links": "use_hard_links",
    "hard link names": "use_hard_links",
    "symbolic links": "use_reparse_points",
    "special files": "use_reparse_points",
    "streams": "use_alternate_data_streams",
    "stream names": "use_alternate_data_streams",
    "letter case": "use_case_sensitive_file_names",
    "offloaded copies": "support_odx_read_write",
}
_SETTINGS = {"exchange": "SupportExchange"}
_CHANGING = _HANDLERS.keys() - {"size of the drive"}


def missing(feature: str, cbfs: CBFS) -> str | None:
    """Why a drive does not have a feature; None if it claims it."""
    for name in _HANDLERS.get(feature, ()):
        if getattr(cbfs, name) is None:
            return f"it has no {name}"
    known = _PROPERTIES.get(feature)
    if known is not None and not getattr(cbfs, known):
        return f"its property {known} is False"
    setting = _SETTINGS.get(feature)
    if setting is not None and cbfs.config(setting).lower() not in ("true", "1"):
        return f"its setting {setting} is False"
    if feature == "streams" and cbfs.config("StreamsInterface") == "windows":
        return "its setting StreamsInterface is windows: streams are no extended attributes"
    if feature in _CHANGING and cbfs.storage_characteristics & STGC_READONLY_DEVICE:
        return "it is read-only (STGC_READONLY_DEVICE)"
    return None
