"""Local files that stand for items of a drive: no way out of a mirror, none onto the drive."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cbfsconnect.engine import local_files
from cbfsconnect.engine.local_files import Mirror, OnOwnDrive, find, reopen

NOWHERE = -1


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to open: by one system call, and component by component."""
    if request.param == "walk":

        def missing(*arguments: object) -> int:
            raise OSError(errno.ENOSYS, "an old kernel")

        monkeypatch.setattr(local_files, "_openat2", missing)
    return str(request.param)


@pytest.fixture
def mirror(tmp_path: Path, way: str) -> Iterator[Mirror]:
    (tmp_path / "mirror/d").mkdir(parents=True)
    (tmp_path / "mirror/d/f").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("outside")
    before = len(os.listdir("/proc/self/fd"))
    mirror = Mirror(str(tmp_path / "mirror"), lambda: NOWHERE)
    yield mirror
    del mirror
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # that of the fixture itself


def text(fd: int) -> str:
    try:
        opened = reopen(fd, os.O_RDONLY)
    finally:
        os.close(fd)
    with os.fdopen(opened) as file:
        return file.read()


def refused(action: Callable[[], int]) -> int:
    with pytest.raises(OSError, match=".") as caught:  # noqa: RUF043 - any text
        os.close(action())
    return caught.value.errno or 0


# --- paths ---------------------------------------------------------------------------------------


def test_a_path_is_followed_as_the_kernel_does(tmp_path: Path, way: str) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/f").write_text("found")
    (tmp_path / "relative").symlink_to("d/e/..")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    for path in ("d/f", "d/e/../f", "./d//f", "relative/f", "absolute/f"):
        assert text(find(f"{tmp_path}/{path}", NOWHERE)) == "found", path
    os.close(find("/", NOWHERE))


def test_a_name_does_not_end_at_a_nul(mirror: Mirror) -> None:
    with pytest.raises((OSError, ValueError), match=r"Invalid argument|null"):
        mirror.find("d/f\0x")


def test_what_is_not_there_says_so(tmp_path: Path, way: str) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = len(os.listdir("/proc/self/fd"))
    assert refused(lambda: find(f"{tmp_path}/none", NOWHERE)) == errno.ENOENT
    assert refused(lambda: find(f"{tmp_path}/f/g", NOWHERE)) == errno.ENOTDIR
    assert refused(lambda: find(f"{tmp_path}/loop", NOWHERE)) == errno.ELOOP
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_drive_is_recognised_before_it_is_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shm = Path("/dev/shm").stat().st_dev
    (tmp_path / "link").symlink_to("/dev/shm")
    for path in ("/dev/shm/anything", "/dev/shm", f"{tmp_path}/link/x", f"{tmp_path}/link"):
        with pytest.raises(OnOwnDrive):
            find(path, shm)


# --- mirrors -------------------------------------------------------------------------------------


def test_names_inside_are_found(mirror: Mirror) -> None:
    assert text(mirror.find("d/f")) == "inside"
    os.close(mirror.find(""))


@pytest.mark.parametrize(
    "name", ["../outside/f", "d/../../outside/f", "/etc/passwd", "..", "link", "dir/f", "deep/f"]
)
def test_no_name_leads_out(mirror: Mirror, tmp_path: Path, name: str) -> None:
    (tmp_path / "mirror/link").symlink_to("../outside/f")
    (tmp_path / "mirror/dir").symlink_to(tmp_path / "outside")
    (tmp_path / "mirror/deep").symlink_to("d")  # inside, but a link all the same
    try:
        found = mirror.find(name)
    except OSError:
        return
    assert os.readlink(f"/proc/self/fd/{found}").startswith(f"{tmp_path}/mirror")
    os.close(found)


def test_nor_while_somebody_swaps_a_directory_for_a_link(mirror: Mirror, tmp_path: Path) -> None:
    inside, other = tmp_path / "mirror/d", tmp_path / "mirror/other"
    other.symlink_to(tmp_path / "outside")
    stop = threading.Event()
    spare = tmp_path / "mirror/spare"

    def swap() -> None:
        while not stop.is_set():
            inside.rename(spare)
            other.rename(inside)
            inside.rename(other)
            spare.rename(inside)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            try:
                found = mirror.find("d/f")
            except OSError:
                continue
            assert text(found) == "inside"
    finally:
        stop.set()
        thread.join()


def test_changes_inside(mirror: Mirror, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    mirror.rename("d/f", "new/deep/g")
    assert (root / "new/deep/g").read_text() == "inside"
    mirror.link("new/deep/g", "h")
    assert (root / "h").samefile(root / "new/deep/g")
    fd = os.open(root / "h", os.O_RDONLY)
    assert mirror.is_at("new/deep/g", fd)
    assert not mirror.is_at("d", fd)
    os.close(fd)
    mirror.remove("h", directory=False)
    mirror.remove("d", directory=True)
    assert sorted(os.listdir(root)) == ["new"]


def test_changes_do_not_leave_it(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "mirror/out").symlink_to(tmp_path / "outside")
    changes: tuple[Callable[[], None], ...] = (
        lambda: mirror.remove("out/f", directory=False),
        lambda: mirror.rename("d/f", "out/g"),
        lambda: mirror.rename("out/f", "d/g"),
        lambda: mirror.link("d/f", "out/g"),
        lambda: mirror.remove("", directory=True),
    )
    for change in changes:
        with pytest.raises(OSError):  # noqa: PT011 - of any kind
            change()
    assert os.listdir(tmp_path / "outside") == ["f"]


def test_other_filesystems_inside_are_reached(tmp_path: Path) -> None:
    mirror = Mirror("/dev", lambda: NOWHERE)
    os.close(mirror.find("shm"))
    own = Mirror("/dev", lambda: Path("/dev/shm").stat().st_dev)
    with pytest.raises(OnOwnDrive):
        own.find("shm")
