"""What the engine was told when media was mounted: properties and settings, frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """One field per rule that the engine follows; class CBFS fills it in."""

    fire_all_open_close_events: bool = False
    serialize_access: bool = True
    use_alternate_data_streams: bool = False
    use_directory_empty_check: bool = True
    use_hard_links: bool = False
    use_disk_quotas: bool = False
    handle_all_fsctls: bool = False
    """Control codes outside of the range of applications reach `on_fsctl`, too."""
    use_reparse_points: bool = False
    use_case_sensitive_file_names: bool = False
    use_short_file_names: bool = False
    use_windows_security: bool = False
    ntfs_attributes: bool = False
    """`system.ntfs_…` attributes are there even if nothing else needs extended attributes."""
    support_odx_read_write: bool = False
    max_file_name_length: int = 255
    max_file_path_length: int = 32767
    file_cache: int = 1
    write_through: bool = False
    metadata_cache: bool = True
    metadata_timeout: float = 1.0
    """Seconds that the kernel may keep names and attributes; negative: until told otherwise."""
    metadata_cache_size: int = 0
    """How many items the kernel may know; 0: as many as it likes."""
    nonexistent_cache: bool = False
    nonexistent_cache_size: int = 0
    """How many names it may remember as not existing; 0: as many as it likes."""
    support_change_time_attribute: bool = False
    support_last_access_time_attribute: bool = True
    use_file_ids: bool = False
    read_outside_eof: bool = True
    fire_set_file_size_on_write: bool = True
    posix_delete: bool = False
    support_exchange: bool = False
    fast_rename: bool = True
    routes: bool = False
    """Items are routed to local files, or will be."""
    passthrough: bool = False
    """The kernel shall read and write those itself."""
    unlock_all: bool = False
    separator: str = "/"
    stream_separator: str = ":"
    xattr_streams: bool = True
    """Named streams are `user.*` extended attributes."""
    windows_streams: bool = False
    """File names with a colon are passed on, as names of streams."""
    sector_size: int = 512
    cluster_size: int = 4096
    timeout: float = 0.0
    """Seconds an event may take before its request fails; 0: any time."""
    read_only: bool = False
    """The drive is mounted so that nothing can be changed by its users."""
    default_permissions: bool = True
    """The kernel checks access by mode and owner; where it leaves that to us, we do."""
    uid: int = 0
    gid: int = 0
    """Owner of items for which the handler gives none."""

    @property
    def reserved(self) -> str:
        """Characters that the names of files cannot have, since they mean something in paths."""
        separator = self.separator if self.separator != "/" else ""
        streams = self.use_alternate_data_streams and not self.windows_streams
        return separator + (self.stream_separator if streams else "").replace("\0", "")

    @property
    def stream_xattrs(self) -> bool:
        """Whether named streams are extended attributes."""
        return self.use_alternate_data_streams and self.xattr_streams

    @property
    def extended_attributes(self) -> bool:
        """Whether there is any use in extended attributes; else the kernel need not ask."""
        return (
            self.stream_xattrs
            or self.use_hard_links
            or self.use_reparse_points
            or self.use_windows_security
            or self.use_short_file_names
            or self.ntfs_attributes
        )

    @property
    def stable_ids(self) -> bool:
        """Whether the file ids that the drive gives are identities: one id, one file."""
        return self.use_file_ids or self.use_hard_links

    @property
    def kernel_cache(self) -> bool:
        """Whether file data may stay in the kernel's page cache."""
        return self.file_cache != 0

    @property
    def write_back(self) -> bool:
        """Whether written data may stay there for a while before it is written out.

        The kernel then believes its own size of a file for ever: not with files that are routed.
        """
        return self.kernel_cache and not self.write_through and not self.routes
