"""Events of Windows security descriptors."""

from cbfsconnect.events.declare import Address, Context, EventParams, In, InOut, Out


class CBFSGetFileSecurityEventParams(
    EventParams,
    number=22,
    kernel="GETXATTR system.ntfs_acl",
    enabled_by="use_windows_security",
):
    """The security descriptor of an item is wanted, self-relative: copy it, set its length.

    When the buffer is too small set `descriptor_length` to what is needed and return
    ERROR_INSUFFICIENT_BUFFER (122): the event fires again with a buffer of that size.
    """

    file_name: In[str]
    security_information: In[int]
    security_descriptor_view: In[memoryview]
    buffer_length: In[int]
    handle_info: In[int]
    descriptor_length: Out[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    security_descriptor = Address("security_descriptor_view")


class CBFSSetFileSecurityEventParams(
    EventParams,
    number=41,
    kernel="SETXATTR system.ntfs_acl",
    enabled_by="use_windows_security",
):
    """Parts of an item's security descriptor change: those named in `security_information`.

    The descriptor is self-relative and has been checked: its parts lie inside of it.
    """

    file_name: In[str]
    security_information: In[int]
    security_descriptor_view: In[memoryview]
    length: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    security_descriptor = Address("security_descriptor_view")
