"""Label and object id of the volume, as Linux programs ask for them and change them.

The label has the ioctls that btrfs, ext4 and xfs have for it. The object id is the attribute
`system.ntfs_object_id` of the root, as ntfs-3g has it: 16 bytes of id, 48 of further information.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cbfsconnect.engine.rights import check_administrator
from cbfsconnect.events import (
    CBFSGetVolumeLabelEventParams,
    CBFSGetVolumeObjectIdEventParams,
    CBFSSetVolumeLabelEventParams,
    CBFSSetVolumeObjectIdEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.fuse.wire import Request

FS_IOC_GETFSLABEL = 0x81009431
FS_IOC_SETFSLABEL = 0x41009432
LABEL_BYTES = 256
"""FSLABEL_MAX: the buffer of both ioctls, the NUL at its end included."""
_MOST_CHARACTERS = 32

OBJECT_ID = b"system.ntfs_object_id"
_ID_BYTES = 16
_EXTENDED_BYTES = 48


def get_label(engine: Engine) -> bytes | int:
    """Fire `on_get_volume_label`: the ioctl's buffer, or an errno."""
    handler = engine.on.on_get_volume_label
    if handler is None:
        return errno.ENOTTY
    params = CBFSGetVolumeLabelEventParams()
    error = engine.fire(handler, params)
    if error:
        return error
    label = params.buffer or vars(params).get("volume_label", "")  # the name of later editions
    data = os.fsencode(label) if isinstance(label, str) else None
    if data is None or len(data) >= LABEL_BYTES or b"\0" in data:
        return engine.nonsense("on_get_volume_label", "the drive", f"buffer is {label!r}")
    return data.ljust(LABEL_BYTES, b"\0")


def set_label(engine: Engine, request: Request, data: bytes) -> int:
    """Fire `on_set_volume_label` with the content of the ioctl's buffer; 0 or an errno."""
    handler = engine.on.on_set_volume_label
    if handler is None:
        return errno.ENOTTY
    encoded, end, _ = data.partition(b"\0")
    label = os.fsdecode(encoded)
    if not end or len(label) > _MOST_CHARACTERS:
        return errno.EINVAL
    if engine.options.read_only:
        return errno.EROFS
    error = check_administrator(engine, request)
    return error or engine.fire(handler, CBFSSetVolumeLabelEventParams(label))


def get_object_id(engine: Engine) -> bytes | int:
    """Fire `on_get_volume_object_id`: the attribute's value, or an errno."""
    handler = engine.on.on_get_volume_object_id
    if handler is None:
        return errno.EOPNOTSUPP
    value = memoryview(bytearray(_ID_BYTES + _EXTENDED_BYTES))
    params = _in_parts(CBFSGetVolumeObjectIdEventParams, value)
    error = engine.fire(handler, params)
    return (errno.ENODATA if error == errno.ENOENT else error) or bytes(value)


def set_object_id(engine: Engine, request: Request, data: bytes) -> int:
    """Fire `on_set_volume_object_id`; 0 or an errno. Without further information that is zeros."""
    handler = engine.on.on_set_volume_object_id
    if handler is None:
        return errno.EOPNOTSUPP
    if len(data) not in (_ID_BYTES, _ID_BYTES + _EXTENDED_BYTES):
        return errno.EINVAL
    error = check_administrator(engine, request)
    if error:
        return error
    value = memoryview(bytearray(data.ljust(_ID_BYTES + _EXTENDED_BYTES, b"\0")))
    return engine.fire(handler, _in_parts(CBFSSetVolumeObjectIdEventParams, value))


def _in_parts(
    kind: type[CBFSGetVolumeObjectIdEventParams] | type[CBFSSetVolumeObjectIdEventParams],
    value: memoryview,
) -> CBFSGetVolumeObjectIdEventParams | CBFSSetVolumeObjectIdEventParams:
    return kind(value[:_ID_BYTES], _ID_BYTES, value[_ID_BYTES:], _EXTENDED_BYTES)
