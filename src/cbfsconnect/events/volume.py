"""Events of the drive as a whole: media, size and names of the volume, errors, worker threads."""

from cbfsconnect.events.declare import EventParams, In, InOut, Out


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


class CBFSGetVolumeLabelEventParams(EventParams, number=25, kernel="mount_media"):
    """The label is wanted, at most 32 characters (`volume_label` is taken as well)."""

    buffer: Out[str] = ""
    result_code: InOut[int] = 0


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
