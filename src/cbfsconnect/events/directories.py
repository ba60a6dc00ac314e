"""Events of directories: listing them, and asking whether they are empty."""

from cbfsconnect.events.declare import Context, EventParams, In, InOut, Out, UtcTime


class CBFSEnumerateDirectoryEventParams(EventParams, number=13, kernel="READDIR, READDIRPLUS"):
    """One entry of a directory is wanted: give it, or set `file_found` False when there is no more.

    Keep the position in `enumeration_context`; `restart` True begins anew. "." and ".." are the
    library's own. One params object serves a whole listing: what the handler may set is reset
    before each entry.

    What is given with a name spares an `on_get_file_info`: set `attributes` or `mode` only when
    size and times are given as well. Linux extensions: as in `on_get_file_info`;
    `hard_link_count` 0 stands for "not given" and then the attributes are not passed on
    while `use_hard_links` is True.
    """

    directory_name: In[str]
    handle_info: In[int]
    mask: In[str] = "*"
    case_sensitive: In[bool] = True
    restart: In[bool] = False
    file_found: Out[bool] = False
    file_name: Out[str] = ""
    short_file_name: Out[str] = ""
    creation_time_ns: Out[int | None] = None
    last_access_time_ns: Out[int | None] = None
    last_write_time_ns: Out[int | None] = None
    change_time_ns: Out[int | None] = None
    size: Out[int] = 0
    allocation_size: Out[int | None] = None
    file_id: Out[int] = 0
    attributes: Out[int] = 0
    hard_link_count: Out[int] = 0
    reparse_tag: Out[int] = 0
    mode: Out[int | None] = None
    uid: Out[int | None] = None
    gid: Out[int | None] = None
    rdev: Out[int] = 0
    directory_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    enumeration_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    creation_time = UtcTime("creation_time_ns")
    last_access_time = UtcTime("last_access_time_ns")
    last_write_time = UtcTime("last_write_time_ns")
    change_time = UtcTime("change_time_ns")

    def renew(self, directory_name: str, restart: bool) -> None:
        """Make the object ready for the next entry; for the library, not for handlers."""
        self._directory_name = directory_name
        self._restart = restart
        self.file_found = False
        self.file_name = self.short_file_name = ""
        self.creation_time_ns = self.last_access_time_ns = None
        self.last_write_time_ns = self.change_time_ns = None
        self.size = self.file_id = self.attributes = 0
        self.hard_link_count = self.reparse_tag = self.rdev = 0
        self.allocation_size = self.mode = self.uid = self.gid = None
        self.result_code = 0


class CBFSCloseDirectoryEnumerationEventParams(
    EventParams, number=3, kernel="the end of the listing, or RELEASEDIR before it"
):
    """A listing is over: free what `on_enumerate_directory` allocated for it."""

    directory_name: In[str]
    enumeration_context: In[Context]
    directory_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSIsDirectoryEmptyEventParams(
    EventParams, number=29, kernel="RMDIR", enabled_by="use_directory_empty_check"
):
    """Has the directory no entries at all?"""

    directory_name: In[str]
    directory_context: InOut[Context] = 0
    is_empty: InOut[bool] = True
    result_code: InOut[int] = 0
