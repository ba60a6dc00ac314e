"""Virtual file systems for Linux in pure Python, with the API of CBFS Connect 2020."""

from .constants import *
from .errors import *

__version__ = "0.1.0"
