"""Events of control requests: what programs ask of an item by ioctl(2)."""

from cbfsconnect.events.declare import Address, Context, EventParams, In, InOut, Out


class CBFSFsctlEventParams(
    EventParams, number=18, kernel="IOCTL (cbfsconnect.send_fsctl): a code of device type 9"
):
    """A filesystem control request: fill the output buffer, say how much is in it.

    `code` is a Windows control code of device type 9 (FILE_DEVICE_FILE_SYSTEM). Its function is
    2400 to 4095, the range of applications; with `handle_all_fsctls` any. Answer a code that is not
    yours with ERROR_INVALID_FUNCTION: the program gets ENOTTY. Linux extension: the buffers as
    memoryviews, None when there is none.
    """

    file_name: In[str]
    code: In[int]
    input_buffer_view: In[memoryview | None]
    input_buffer_length: In[int]
    output_buffer_view: In[memoryview | None]
    output_buffer_length: In[int]
    bytes_returned: Out[int] = 0
    file_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    input_buffer = Address("input_buffer_view")
    output_buffer = Address("output_buffer_view")


class CBFSIoctlEventParams(
    EventParams,
    number=28,
    kernel="IOCTL: any of Linux that is not the library's, and cbfsconnect.send_ioctl",
):
    """A control request that is none of the filesystem: as in `on_fsctl`.

    `code` is a Windows control code of another device type than 9, or the number of a Linux ioctl,
    whose own bits tell how much goes in and out. Answer a code that is not yours with
    ERROR_INVALID_FUNCTION: programs try ioctls on files of every kind and expect ENOTTY.
    """

    file_name: In[str]
    code: In[int]
    input_buffer_view: In[memoryview | None]
    input_buffer_length: In[int]
    output_buffer_view: In[memoryview | None]
    output_buffer_length: In[int]
    bytes_returned: Out[int] = 0
    result_code: InOut[int] = 0
    input_buffer = Address("input_buffer_view")
    output_buffer = Address("output_buffer_view")


class CBFSSetValidDataLengthEventParams(
    EventParams, number=45, kernel="IOCTL (cbfsconnect.set_valid_data_length)"
):
    """The first `valid_data_length` bytes of a file count as written: they need not be zeros.

    The size of the file was set before and is not less.
    """

    file_name: In[str]
    valid_data_length: In[int]
    handle_info: In[int]
    file_context: InOut[Context] = 0
    handle_context: InOut[Context] = 0
    result_code: InOut[int] = 0
