"""Events of byte-range locks."""

from cbfsconnect.events.declare import Context, EventParams, In, InOut


class CBFSLockFileEventParams(EventParams, number=30, kernel="SETLK, SETLKW"):
    """A range of bytes of an open file is to be locked.

    The library has checked it against the locks of its own clients already; handle this only to
    pass the lock on to storage that others use too, and then `on_unlock_file` as well.
    """

    file_name: In[str]
    byte_offset: In[int]
    length: In[int]
    exclusive_lock: In[bool]
    fail_immediately: In[bool]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0


class CBFSUnlockFileEventParams(
    EventParams, number=48, kernel="SETLK with F_UNLCK; FLUSH and RELEASE of who holds locks"
):
    """A range is released; -1 and -1: all of the handle's (setting SupportUnlockAllRequests).

    A range to the end of the file, however long that becomes, ends at 2**63. A program may name a
    range of which only parts are locked: it comes as it was named, once. For what a closing or
    dying process holds still, each range comes, or with that setting one -1 and -1 for a handle.
    The result is ignored: an unlock does not fail.
    """

    file_name: In[str]
    byte_offset: In[int]
    length: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
