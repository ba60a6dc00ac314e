"""`python -m cbfsconnect [DIRECTORY]`: a drive in memory, for a first look."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import sys

from cbfsconnect.drive import mount
from cbfsconnect.drives import MemoryDrive
from cbfsconnect.errors import CBFSConnectError

_TRY = """\
A drive in memory is mounted at {path}. Try, in another shell:

    cd {path}
    echo hello > greeting; ln -s greeting link; ls -la
    git init project; df -h .

Stop it here with Ctrl-C, or there with: {unmount}
What is on it is gone then."""


def main(arguments: list[str] | None = None) -> int:
    """Mount the drive and serve it in the foreground; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cbfsconnect", description=__doc__)
    parser.add_argument("directory", nargs="?", default="drive", help="made if it is missing")
    parser.add_argument("--size", type=_mebibytes, default=1024, help="MiB, default 1024")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    path = os.path.abspath(given.directory)
    made = False
    try:
        made = _make(path)
        _serve(MemoryDrive(size=given.size << 20), path)
    except KeyboardInterrupt:
        print()
    except (CBFSConnectError, OSError) as error:
        message = error.message if isinstance(error, CBFSConnectError) else str(error)
        print(f"cbfsconnect: {message}", file=sys.stderr)
        return 1
    finally:
        if made:
            with contextlib.suppress(OSError):  # somebody else has mounted something there
                os.rmdir(path)
    return 0


def _serve(handlers: MemoryDrive, path: str) -> None:
    """Mount, say what to try, and wait for the end; Ctrl-C is let through when all is unmounted."""
    with mount(handlers, path) as drive:
        unmount = "umount" if os.geteuid() == 0 else "fusermount3 -u"
        quoted = shlex.quote(path)
        print(_TRY.format(path=quoted, unmount=f"{unmount} {quoted}"), flush=True)
        drive.wait()


def _make(path: str) -> bool:
    """Make the directory; whether it was missing. The mount of a dead server is there, too, though
    nobody can look at it."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True


def _mebibytes(text: str) -> int:
    size = int(text)
    if size < 1:
        raise argparse.ArgumentTypeError("a drive needs 1 MiB at least")
    return size


if __name__ == "__main__":
    sys.exit(main())
