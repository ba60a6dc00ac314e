"""Virtual file systems for Linux in pure Python, with the API of CBFS Connect 2020.

`CBFS` is the class of the contract; `mount` and `run` are the short way. A star import gives what
programs for the 2020 Python edition expect: the class, its exception, the params classes of all
events and the constants.
"""

from cbfsconnect import constants, errors, events
from cbfsconnect.cbfs import CBFS
from cbfsconnect.client import enumerate_hard_links
from cbfsconnect.constants import *
from cbfsconnect.drive import Drive, mount, run
from cbfsconnect.drives import MemoryDrive
from cbfsconnect.errors import *
from cbfsconnect.events import *

__version__ = "0.1.0"

__all__ = [
    "CBFS",
    "Drive",
    "MemoryDrive",
    "enumerate_hard_links",
    "mount",
    "run",
    *constants.__all__,
    *errors.__all__,
    *events.__all__,
]
