"""Checks that the author of a drive can run against it, through a real mount.

    from cbfsconnect.testing import check_drive

    report = check_drive(MyDrive)
    print(report)

or, from the shell, `python -m cbfsconnect.testing mydrive:MyDrive`, or with pytest or unittest a
class derived from `DriveTests`. Nothing beyond the standard library is needed.
"""

from cbfsconnect.testing.cases import DriveTests
from cbfsconnect.testing.registry import CHECKS, Check
from cbfsconnect.testing.report import Outcome, Report, Result
from cbfsconnect.testing.running import check_drive, choose

__all__ = [
    "CHECKS",
    "Check",
    "DriveTests",
    "Outcome",
    "Report",
    "Result",
    "check_drive",
    "choose",
]
