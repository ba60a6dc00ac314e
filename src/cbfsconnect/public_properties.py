"""The properties of class CBFS."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from cbfsconnect import constants as c
from cbfsconnect.events import EventSource
from cbfsconnect.properties import Change, Property

_MOST_CACHED = 1 << 31
_STGC = (
    c.STGC_FLOPPY_DISKETTE
    | c.STGC_READONLY_DEVICE
    | c.STGC_WRITE_ONCE_MEDIA
    | c.STGC_REMOVABLE_MEDIA
    | c.STGC_AUTOCREATE_DRIVE_LETTER
    | c.STGC_SHOW_IN_EJECTION_TRAY
    | c.STGC_ALLOW_EJECTION
)


class PublicProperties(EventSource):
    """Every property that is not state; see `Property` for the change rules.

    The numbers and defaults are those of the 2020 edition where its pages show them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, Any] = {}

    @property
    @abstractmethod
    def active(self) -> bool:
        """Whether media is mounted and events fire."""

    @property
    @abstractmethod
    def storage_present(self) -> bool:
        """Whether the drive exists."""

    @abstractmethod
    def _refuse_in_event(self, what: str) -> None: ...

    file_cache = Property(
        1,
        Change.ANY,
        "Where file data is cached: 0 nowhere, 1 to 3 in the kernel's page cache. A change takes "
        "effect with the next mount_media.",
        range(4),
    )
    file_system_name = Property(
        "cbfs", Change.BEFORE_STORAGE, "Kept for ported programs; Linux shows fuse.cbfs."
    )
    fire_all_open_close_events = Property(
        False,
        Change.BEFORE_STORAGE,
        "True: open, cleanup and close events fire for every handle. False: for the first open "
        "and the last close of a file.",
    )
    handle_all_fsctls = Property(
        False,
        Change.BEFORE_STORAGE,
        "False: on_fsctl fires for control codes with the functions 2400 to 4095. True: for all.",
    )
    max_file_name_length = Property(
        255, Change.BEFORE_STORAGE, "The longest file name, in bytes.", range(1, 256)
    )
    max_file_path_length = Property(
        32767,
        Change.BEFORE_STORAGE,
        "The longest path, in characters, that on_get_file_name_by_file_id may give. Programs may "
        "use longer ones.",
        range(1, 32768),
    )
    max_file_size = Property(
        (1 << 63) - 1,
        Change.BEFORE_STORAGE,
        "Kept for ported programs; not enforced.",
        lambda n: n > 0,
    )
    metadata_cache_enabled = Property(
        True,
        Change.INACTIVE,
        "Whether the kernel may keep names and attributes, for as long as the setting "
        "MetadataCacheTimeout says.",
    )
    metadata_cache_size = Property(
        0,
        Change.INACTIVE,
        "How many items the kernel may know names and attributes of; those it has known longest "
        "make room. 0: as many as it likes.",
        range(_MOST_CACHED),
    )
    non_existent_files_cache_enabled = Property(
        False,
        Change.ANY,
        "Whether the kernel may remember that a name does not exist. A change takes effect with "
        "the next mount_media.",
    )
    non_existent_files_cache_size = Property(
        0,
        Change.ANY,
        "How many names the kernel may remember as not existing; the oldest make room. 0: as many "
        "as it likes. A change takes effect with the next mount_media.",
        range(_MOST_CACHED),
    )
    process_restrictions_enabled = Property(
        False,
        Change.INACTIVE,
        "Whether access rules hold, which add_granted_process and add_denied_process add. The "
        "kernel then remembers no names and attributes.",
    )
    serialize_access = Property(
        True,
        Change.BEFORE_STORAGE,
        "False: several reads of one file may be in their handlers at the same time.",
    )
    serialize_events = Property(
        False, Change.INACTIVE, "True: one worker thread serves all events."
    )
    storage_characteristics = Property(
        c.STGC_REMOVABLE_MEDIA,
        Change.BEFORE_STORAGE,
        "STGC_… flags. STGC_READONLY_DEVICE: nothing on the drive can be changed (EROFS).",
        lambda flags: not flags & ~_STGC,
    )
    storage_guid = Property(
        "", Change.BEFORE_STORAGE, "GUID in braces; a drive of type STGT_DISK_PNP needs one."
    )
    storage_type = Property(
        c.STGT_DISK,
        Change.BEFORE_STORAGE,
        "STGT_DISK, STGT_CDROM or STGT_DISK_PNP.",
        (c.STGT_DISK, c.STGT_CDROM, c.STGT_DISK_PNP),
    )
    support_change_time_attribute = Property(
        False,
        Change.BEFORE_STORAGE,
        "The drive keeps the time of last change of an item (st_ctime). False: it is the time of "
        "last write, and on_set_file_attributes never gets one.",
    )
    support_last_access_time_attribute = Property(
        True,
        Change.BEFORE_STORAGE,
        "Closing a file that was opened for reading sets its time of last access, where the drive "
        "gives one and it is older than 60 seconds. False: that time is only set together with the "
        "time of last write.",
    )
    support_odx_read_write = Property(
        False,
        Change.INACTIVE,
        "Parts of files may be copied by tokens; the offload events fire for copy_file_range.",
    )
    tag = Property(
        0,
        Change.ANY,
        "Free for the program's use: a number of 64 bits, signed or not.",
        range(-(1 << 63), 1 << 64),
    )
    use_alternate_data_streams = Property(
        False, Change.INACTIVE, "Items may have named streams; the stream events fire."
    )
    use_case_sensitive_file_names = Property(
        False,
        Change.INACTIVE,
        "Whether names that differ in letter case only are different; else real_file_name of "
        "on_get_file_info, or the file id, tells that they are one.",
    )
    use_directory_empty_check = Property(
        True, Change.INACTIVE, "on_is_directory_empty is asked before a directory is deleted."
    )
    use_disk_quotas = Property(
        False,
        Change.INACTIVE,
        "The drive keeps account of what users may store; the quota events fire.",
    )
    use_hard_links = Property(
        False, Change.INACTIVE, "Files may have several names; the hard link events fire."
    )
    use_reparse_points = Property(
        False,
        Change.INACTIVE,
        "Symbolic links and special files may be made; the reparse point events fire.",
    )
    use_short_file_names = Property(
        False,
        Change.INACTIVE,
        "Items have 8.3 names too, which on_get_file_info gives as short_file_name and every event "
        "takes; programs read them as system.ntfs_dos_name.",
    )
    use_windows_security = Property(
        False,
        Change.INACTIVE,
        "Items have security descriptors, as system.ntfs_acl; the security events fire.",
    )
