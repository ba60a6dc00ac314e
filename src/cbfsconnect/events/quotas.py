"""Events of disk quotas: how much of the drive each user may fill. The library enforces nothing."""

from cbfsconnect.events.declare import Address, Context, EventParams, In, InOut, Out


class CBFSQueryQuotasEventParams(
    EventParams,
    number=35,
    kernel="IOCTL (cbfsconnect.query_quota, list_quotas)",
    enabled_by="use_disk_quotas",
):
    """The quota of one user is wanted, or the next one of all.

    One user: `index` is -1, `sid` points to the binary SID. All: `index` counts from 0, `sid` is
    empty; copy the SID of the quota to `sid_out` as well. Set `quota_found` False when there is
    none, or none any more. Numbers as in DISKQUOTA_USER_INFORMATION: bytes, -1 is no limit.
    Linux extension: `sid_view` and `sid_out_view`, the same memory as memoryviews or None.
    """

    sid_view: In[memoryview | None]
    sid_length: In[int]
    index: In[int]
    sid_out_view: In[memoryview | None]
    sid_out_length: In[int]
    quota_found: InOut[bool] = False
    quota_used: InOut[int] = 0
    quota_threshold: InOut[int] = 0
    quota_limit: InOut[int] = 0
    enumeration_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    sid = Address("sid_view")
    sid_out = Address("sid_out_view")


class CBFSSetQuotasEventParams(
    EventParams,
    number=43,
    kernel="IOCTL (cbfsconnect.set_quota, remove_quota)",
    enabled_by="use_disk_quotas",
):
    """The quota of a user is to be stored, or with `remove_quota` to be forgotten.

    Set `quota_found` when there was one already. Fires once for each SID of a request, in a row.
    """

    sid_view: In[memoryview]
    sid_length: In[int]
    remove_quota: In[bool]
    quota_used: In[int]
    quota_threshold: In[int]
    quota_limit: In[int]
    quota_found: InOut[bool] = False
    enumeration_context: InOut[Context] = 0
    result_code: InOut[int] = 0
    sid = Address("sid_view")


class CBFSCloseQuotasEnumerationEventParams(
    EventParams,
    number=7,
    kernel="the end of the same request, whatever its outcome",
    enabled_by="use_disk_quotas",
):
    """Reading or changing quotas is over: free what these events allocated."""

    enumeration_context: In[Context]
    result_code: InOut[int] = 0


class CBFSGetDefaultQuotaInfoEventParams(
    EventParams,
    number=19,
    kernel="IOCTL (cbfsconnect.get_default_quota)",
    enabled_by="use_disk_quotas",
):
    """The quota of users who have none of their own: what was set last."""

    default_quota_threshold: Out[int] = 0
    default_quota_limit: Out[int] = 0
    file_system_control_flags: Out[int] = 0
    result_code: InOut[int] = 0


class CBFSSetDefaultQuotaInfoEventParams(
    EventParams,
    number=39,
    kernel="IOCTL (cbfsconnect.set_default_quota)",
    enabled_by="use_disk_quotas",
):
    """The quota of users who have none of their own is to be stored."""

    default_quota_threshold: In[int]
    default_quota_limit: In[int]
    file_system_control_flags: In[int]
    result_code: InOut[int] = 0
