"""Events of files: opening and closing, data, sizes, attributes, deletion, renaming."""

from cbfsconnect.events.declare import Address, Context, EventParams, In, InOut, Out, UtcTime


class CBFSGetFileInfoEventParams(EventParams, number=20, kernel="LOOKUP, GETATTR, STATX"):
    """Information about an item is wanted, by its path.

    Say first whether it exists: if not, set `file_exists` False and leave `result_code` 0.

    Linux extensions: `mode` (with or without the type bits), `uid`, `gid`, `rdev` and the times in
    nanoseconds; what is left None gets a default made of `attributes`. `file_context` is that of
    the item when it is open, else 0; a drive with the setting PosixDelete must look there first,
    since the item may have lost its name.
    """

    file_name: In[str]
    file_context: In[Context] = 0
    file_exists: Out[bool] = False
    creation_time_ns: Out[int | None] = None
    last_access_time_ns: Out[int | None] = None
    last_write_time_ns: Out[int | None] = None
    change_time_ns: Out[int | None] = None
    size: Out[int] = 0
    allocation_size: Out[int | None] = None
    file_id: Out[int] = 0
    attributes: Out[int] = 0
    hard_link_count: Out[int] = 1
    reparse_tag: Out[int] = 0
    short_file_name: Out[str] = ""
    real_file_name: Out[str] = ""
    mode: Out[int | None] = None
    uid: Out[int | None] = None
    gid: Out[int | None] = None
    rdev: Out[int] = 0
    result_code: InOut[int] = 0
    creation_time = UtcTime("creation_time_ns")
    last_access_time = UtcTime("last_access_time_ns")
    last_write_time = UtcTime("last_write_time_ns")
    change_time = UtcTime("change_time_ns")


class CBFSCreateFileEventParams(EventParams, number=8, kernel="CREATE, MKNOD, MKDIR, SYMLINK"):
    """A file or directory (bit 0x10 of `attributes`) is to be created and opened.

    `attributes`: the low 16 bits are attributes, those above are flags of the request. The name
    carries a colon for a named stream. Linux extensions: `mode` with the type bits, after the
    umask; `uid` and `gid` the new item shall belong to; `rdev` of a device node.
    """

    file_name: In[str]
    desired_access: In[int]
    attributes: In[int]
    share_mode: In[int]
    nt_create_disposition: In[int]
    nt_desired_access: In[int]
    file_info: In[int]
    handle_info: In[int]
    mode: In[int]
    uid: In[int]
    gid: In[int]
    rdev: In[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSOpenFileEventParams(
    EventParams, number=34, kernel="OPEN, OPENDIR, and before a request that needs an open item"
):
    """An existing file or directory (bit 0x10 of `attributes`) is opened."""

    file_name: In[str]
    desired_access: In[int]
    attributes: In[int]
    share_mode: In[int]
    nt_create_disposition: In[int]
    nt_desired_access: In[int]
    file_info: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSCleanupFileEventParams(
    EventParams, number=2, kernel="FLUSH: a process closed a descriptor; RELEASEDIR"
):
    """A process closed a handle of the file. What is returned is what close(2) returns."""

    file_name: In[str]
    handle_info: In[int]
    file_context: In[Context]
    handle_context: In[Context]
    result_code: InOut[int] = 0


class CBFSCloseFileEventParams(EventParams, number=4, kernel="RELEASE, RELEASEDIR"):
    """The last reference to a handle is gone. With `delete_file`, `on_delete_file` follows."""

    file_name: In[str]
    delete_file: In[bool]
    handle_info: In[int]
    file_context: In[Context]
    handle_context: In[Context]
    result_code: InOut[int] = 0


class CBFSReadFileEventParams(EventParams, number=36, kernel="READ"):
    """Data of an open file is wanted: copy up to `bytes_to_read` bytes, say how many.

    Linux extension: `buffer_view`, the same memory as a writable memoryview.
    `handle_context` is None where no handle is known.
    """

    file_name: In[str]
    position: In[int]
    buffer_view: In[memoryview]
    bytes_to_read: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    bytes_read: InOut[int] = 0
    result_code: InOut[int] = 0
    buffer = Address("buffer_view")


class CBFSWriteFileEventParams(EventParams, number=52, kernel="WRITE"):
    """Data is to be written to an open file: take `bytes_to_write` bytes, say how many were.

    A write from the kernel's cache comes later than the program's own, with `handle_info` 0,
    `handle_context` None and no originator. Linux extension: `buffer_view`, the same memory as a
    memoryview; copy what must outlive the handler.
    """

    file_name: In[str]
    position: In[int]
    buffer_view: In[memoryview]
    bytes_to_write: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    bytes_written: InOut[int] = 0
    result_code: InOut[int] = 0
    buffer = Address("buffer_view")


class CBFSFlushFileEventParams(EventParams, number=17, kernel="FSYNC, FSYNCDIR, SYNCFS"):
    """The file's data and metadata (empty name: the whole drive's) must reach storage now."""

    file_name: In[str]
    file_context: In[Context]
    result_code: InOut[int] = 0


class CBFSSetFileSizeEventParams(
    EventParams,
    number=42,
    kernel="SETATTR (truncate), OPEN with O_TRUNC, FALLOCATE, before a WRITE past the end",
):
    """The file's size changes; a grown part reads as zeros."""

    file_name: In[str]
    size: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSSetAllocationSizeEventParams(EventParams, number=38, kernel="FALLOCATE"):
    """Space is to be reserved, in bytes from the file's start; the size stays as it is."""

    file_name: In[str]
    allocation_size: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSSetFileAttributesEventParams(
    EventParams, number=40, kernel="SETATTR (utimens, chmod, chown)"
):
    """Times or attributes of an open item change; None, 0 or 1970-01-01 leave one unchanged.

    Linux extensions: `mode` (permission bits), `uid`, `gid`, and the times in nanoseconds.
    """

    file_name: In[str]
    handle_info: In[int]
    creation_time_ns: In[int | None] = None
    last_access_time_ns: In[int | None] = None
    last_write_time_ns: In[int | None] = None
    change_time_ns: In[int | None] = None
    attributes: In[int] = 0
    mode: In[int | None] = None
    uid: In[int | None] = None
    gid: In[int | None] = None
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    creation_time = UtcTime("creation_time_ns")
    last_access_time = UtcTime("last_access_time_ns")
    last_write_time = UtcTime("last_write_time_ns")
    change_time = UtcTime("change_time_ns")


class CBFSCanFileBeDeletedEventParams(EventParams, number=1, kernel="UNLINK, RMDIR"):
    """May the item be deleted? The only place to refuse: `on_delete_file` is too late."""

    file_name: In[str]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    can_be_deleted: Out[bool] = True
    result_code: InOut[int] = 0


class CBFSDeleteFileEventParams(
    EventParams, number=10, kernel="UNLINK, RMDIR, or the last RELEASE"
):
    """The item is to be deleted: the last handle is closed (see the setting PosixDelete)."""

    file_name: In[str]
    file_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSRenameOrMoveFileEventParams(EventParams, number=37, kernel="RENAME, RENAME2"):
    """The item gets another path; an item that is there already is replaced.

    Linux extension: `exchange` True asks to swap the two names at once (RENAME_EXCHANGE);
    it fires only where the handler's drive declares the setting SupportExchange.
    """

    file_name: In[str]
    new_file_name: In[str]
    exchange: In[bool] = False
    file_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSGetFileNameByFileIdEventParams(
    EventParams, number=21, kernel="LOOKUP by handle (open_by_handle_at, NFS), parents of links"
):
    """An id that the drive gave as `file_id` is to be turned into a path."""

    file_id: In[int]
    file_path: Out[str] = ""
    result_code: InOut[int] = 0
