"""Events of the drive as a whole: media, size and names of the volume, errors, worker threads."""

from cbfsconnect.events.declare import Address, EventParams, In, InOut, Out


class CBFSMountEventParams(EventParams, number=31, kernel="mount_media"):
    """Media has been mounted."""

    result_code: InOut[int] = 0


class CBFSUnmountEventParams(EventParams, number=49, kernel="unmount_media, delete_storage"):
    """Media has been unmounted."""

    result_code: InOut[int] = 0


class CBFSEjectedEventParams(EventParams, number=12, kernel="umount(8) by somebody else"):
    """Somebody else unmounted the drive's last mounting point; the drive is gone already.

    `result_code` is that of the automatic `delete_storage`.
    """

    result_code: InOut[int] = 0


class CBFSErrorEventParams(EventParams, number=16, kernel="a handler that failed"):
    """A handler let an exception escape, or answered with nonsense."""

    error_code: In[int]
    description: In[str]


class CBFSGetVolumeSizeEventParams(EventParams, number=27, kernel="STATFS, mount_media"):
    """Capacity and free space are wanted, in sectors (setting SectorSize, bytes)."""

    total_sectors: Out[int] = 0
    available_sectors: Out[int] = 0
    result_code: InOut[int] = 0


class CBFSGetVolumeLabelEventParams(
    EventParams, number=25, kernel="mount_media, IOCTL FS_IOC_GETFSLABEL"
):
    """The label is wanted, at most 32 characters (`volume_label` is taken as well)."""

    buffer: Out[str] = ""
    result_code: InOut[int] = 0


class CBFSSetVolumeLabelEventParams(
    EventParams, number=46, kernel="IOCTL FS_IOC_SETFSLABEL (cbfsconnect.set_volume_label)"
):
    """The volume gets a new label, of at most 32 characters: `on_get_volume_label` returns it."""

    volume_label: In[str]
    result_code: InOut[int] = 0


class CBFSGetVolumeObjectIdEventParams(
    EventParams, number=26, kernel="GETXATTR system.ntfs_object_id of the root"
):
    """The object id of the volume is wanted: 16 bytes, and 48 of extended information.

    Linux extension: the buffers as memoryviews.
    """

    object_id_view: In[memoryview]
    object_id_length: In[int]
    extended_information_view: In[memoryview]
    extended_information_length: In[int]
    result_code: InOut[int] = 0
    object_id = Address("object_id_view")
    extended_information = Address("extended_information_view")


class CBFSSetVolumeObjectIdEventParams(
    EventParams, number=47, kernel="SETXATTR system.ntfs_object_id of the root"
):
    """The volume gets a new object id: `on_get_volume_object_id` returns it."""

    object_id_view: In[memoryview]
    object_id_length: In[int]
    extended_information_view: In[memoryview]
    extended_information_length: In[int]
    result_code: InOut[int] = 0
    object_id = Address("object_id_view")
    extended_information = Address("extended_information_view")


class CBFSGetVolumeIdEventParams(EventParams, number=24, kernel="mount_media"):
    """The 32-bit id (serial number) of the volume is wanted."""

    volume_id: Out[int] = 0
    result_code: InOut[int] = 0


class CBFSWorkerThreadCreationEventParams(EventParams, number=50, kernel="a new worker thread"):
    """A worker thread begins; fired on that very thread."""

    result_code: InOut[int] = 0


class CBFSWorkerThreadTerminationEventParams(
    EventParams, number=51, kernel="the end of a worker thread"
):
    """A worker thread ends; fired on that very thread."""
