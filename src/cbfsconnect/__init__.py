"""Virtual file systems for Linux in pure Python, with the API of CBFS Connect 2020.

`CBFS` is the class of the contract; `mount` and `run` are the short way. A star import gives what
programs for the 2020 Python edition expect: the class, its exception, the params classes of all
events and the constants. What else there is has to be imported by name.
"""

from typing import TYPE_CHECKING

from cbfsconnect import constants, errors, events
from cbfsconnect.cbfs import CBFS as CBFS
from cbfsconnect.client import enumerate_hard_links as enumerate_hard_links
from cbfsconnect.constants import *
from cbfsconnect.control import (
    ctl_code as ctl_code,
    get_volume_label as get_volume_label,
    send_fsctl as send_fsctl,
    send_ioctl as send_ioctl,
    set_valid_data_length as set_valid_data_length,
    set_volume_label as set_volume_label,
)
from cbfsconnect.drive import (
    Drive as Drive,
    mount as mount,
    run as run,
)
from cbfsconnect.drives import MemoryDrive as MemoryDrive
from cbfsconnect.errors import *
from cbfsconnect.events import *
from cbfsconnect.quotas import (
    DefaultQuota as DefaultQuota,
    Quota as Quota,
    get_default_quota as get_default_quota,
    list_quotas as list_quotas,
    query_quota as query_quota,
    remove_quota as remove_quota,
    set_default_quota as set_default_quota,
    set_quota as set_quota,
    set_quotas as set_quotas,
)
from cbfsconnect.sids import (
    sid_of_uid as sid_of_uid,
    sid_to_bytes as sid_to_bytes,
    sid_to_text as sid_to_text,
    uid_of_sid as uid_of_sid,
)

__version__ = "0.1.0"

if not TYPE_CHECKING:
    # For ported programs alone: `run`, `mount` or `Event` would hide what they have of that name.
    # Checkers understand no list that is made of others. Without one they take what is imported
    # here by star or `as` for exported.
    __all__ = [
        "CBFS",
        *constants.__all__,
        *errors.__all__,
        *(name for name in events.__all__ if name.startswith("CBFS")),
    ]
