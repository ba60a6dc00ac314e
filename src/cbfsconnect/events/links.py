"""Events of hard links, reparse points (symbolic links, special files) and named streams."""

from cbfsconnect.events.declare import Address, Context, EventParams, In, InOut, Out


class CBFSCreateHardLinkEventParams(
    EventParams, number=9, kernel="LINK", enabled_by="use_hard_links"
):
    """A further name (`link_name`, an absolute path) is wanted for an existing file."""

    file_name: In[str]
    link_name: In[str]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSEnumerateHardLinksEventParams(
    EventParams,
    number=14,
    kernel="GETXATTR system.cbfs.hard_links (cbfsconnect.enumerate_hard_links)",
    enabled_by="use_hard_links",
):
    """One name of a file is wanted: its last component and the file id of its directory.

    Set `link_found` False when there is no more. The name by which the file was opened counts.
    """

    file_name: In[str]
    handle_info: In[int]
    link_found: Out[bool] = False
    link_name: Out[str] = ""
    parent_id: Out[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    enumeration_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSCloseHardLinksEnumerationEventParams(
    EventParams,
    number=5,
    kernel="the end of the same request, whatever its outcome",
    enabled_by="use_hard_links",
):
    """A listing of hard links is over: free what it allocated."""

    file_name: In[str]
    handle_info: In[int]
    enumeration_context: In[Context]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSSetReparsePointEventParams(
    EventParams, number=44, kernel="SYMLINK, MKNOD", enabled_by="use_reparse_points"
):
    """Reparse data are to be stored with an item: tag, then data, in one buffer with its header.

    A symbolic link of Linux has the tag IO_REPARSE_TAG_LX_SYMLINK (0xA000001D) and the data
    `<I` 2 followed by the target. Linux extension: `reparse_buffer_view`.
    """

    file_name: In[str]
    reparse_tag: In[int]
    reparse_buffer_view: In[memoryview]
    reparse_buffer_length: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    reparse_buffer = Address("reparse_buffer_view")


class CBFSGetReparsePointEventParams(
    EventParams, number=23, kernel="READLINK", enabled_by="use_reparse_points"
):
    """The stored reparse data are wanted: copy them, set the length.

    When the buffer is too small copy what fits and return ERROR_MORE_DATA (234).
    """

    file_name: In[str]
    reparse_buffer_view: In[memoryview]
    handle_info: In[int]
    reparse_buffer_length: InOut[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    reparse_buffer = Address("reparse_buffer_view")


class CBFSDeleteReparsePointEventParams(
    EventParams,
    number=11,
    kernel="REMOVEXATTR system.ntfs_reparse_data",
    enabled_by="use_reparse_points",
):
    """The reparse data are to be forgotten; the item itself stays."""

    file_name: In[str]
    reparse_buffer_view: In[memoryview]
    reparse_buffer_length: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    reparse_buffer = Address("reparse_buffer_view")


class CBFSEnumerateNamedStreamsEventParams(
    EventParams, number=15, kernel="LISTXATTR", enabled_by="use_alternate_data_streams"
):
    """One named stream of an item is wanted, its name with a leading colon.

    Set `named_stream_found` False when there is no more. `:NAME` and `:NAME:$DATA` are both taken.
    """

    file_name: In[str]
    handle_info: In[int]
    named_stream_found: Out[bool] = False
    stream_name: Out[str] = ""
    stream_size: Out[int] = 0
    stream_allocation_size: Out[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    enumeration_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSCloseNamedStreamsEnumerationEventParams(
    EventParams,
    number=6,
    kernel="the end of the same request, whatever its outcome",
    enabled_by="use_alternate_data_streams",
):
    """A listing of named streams is over: free what it allocated."""

    file_name: In[str]
    handle_info: In[int]
    enumeration_context: In[Context]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
