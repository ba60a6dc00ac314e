"""Events of offloaded data transfer: a token stands for a part of a file and is written for it."""

from cbfsconnect.events.declare import Address, Context, EventParams, In, InOut


class CBFSOffloadReadFileEventParams(
    EventParams,
    number=32,
    kernel="COPY_FILE_RANGE (copy_file_range, cp --reflink=auto)",
    enabled_by="support_odx_read_write",
):
    """A token is wanted that stands for a part of the file.

    Put it into the buffer and set `token_length`, `token_type`, and `transfer_length`: how many
    bytes it stands for, which may be less than `copy_length`. Type 0xFFFF0001 needs no token: the
    data are zeros. Return ERROR_OFFLOAD_READ_FILE_NOT_SUPPORTED and the kernel reads and writes.
    """

    file_name: In[str]
    token_time_to_live: In[int]
    position: In[int]
    copy_length: In[int]
    token_buffer_view: In[memoryview]
    buffer_length: In[int]
    handle_info: In[int]
    transfer_length: InOut[int] = 0
    token_type: InOut[int] = 0
    token_length: InOut[int] = 0
    result_flags: InOut[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    token_buffer = Address("token_buffer_view")


class CBFSOffloadWriteFileEventParams(
    EventParams,
    number=33,
    kernel="COPY_FILE_RANGE, after on_offload_read_file",
    enabled_by="support_odx_read_write",
):
    """The data that a token stands for are to be written; the file grows if they go past its end.

    Set `transfer_length` to the bytes written: they may be fewer than `copy_length`, and the event
    fires again for the rest, with a `transfer_offset`.
    """

    file_name: In[str]
    position: In[int]
    copy_length: In[int]
    transfer_offset: In[int]
    token_type: In[int]
    token_view: In[memoryview]
    token_length: In[int]
    handle_info: In[int]
    transfer_length: InOut[int] = 0
    result_flags: InOut[int] = 0
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    token = Address("token_view")
