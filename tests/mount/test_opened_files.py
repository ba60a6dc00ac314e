"""The snapshot of open files, and letting go of unused ones."""

import os
import sys

import pytest

import cbfsconnect
from cbfsconnect import CBFSConnectError
from support.client import Client
from support.mounts import Mounting
from support.recorder import Recorder


@pytest.mark.proves(
    "open_handles_count",
    "open_objects_count",
    "open_files_count",
    "get_open_file_handle_closed",
    "get_open_file_name",
    "get_open_file_process_id",
    "get_open_file_process_name",
    "create_opened_files_snapshot",
    "close_opened_files_snapshot",
)
def test_the_snapshot_tells_who_has_what_open(mount: Mounting, client: Client) -> None:
    drive = mount(cbfsconnect.MemoryDrive())
    client.run("one = open(at + '/f', 'w'); two = open(at + '/f')", at=drive.mountpoint)
    cbfs = drive.cbfs
    assert cbfs.open_files_count == 0
    cbfs.create_opened_files_snapshot()
    assert (cbfs.open_files_count, cbfs.open_handles_count, cbfs.open_objects_count) == (3, 2, 2)
    entries = [
        (
            cbfs.get_open_file_name(n),
            cbfs.get_open_file_process_id(n),
            os.path.realpath(cbfs.get_open_file_process_name(n)),
            cbfs.get_open_file_handle_closed(n),
        )
        for n in range(3)
    ]
    program = os.path.realpath(sys.executable)
    assert entries[0] == ("/", os.getpid(), program, False)
    assert entries[1:] == [("/f", client.pid, program, False)] * 2
    with pytest.raises(CBFSConnectError, match="no open file 3"):
        cbfs.get_open_file_name(3)
    client.run("one.close(); two.close()")
    assert cbfs.open_files_count == 3, "a snapshot does not change"
    cbfs.close_opened_files_snapshot()
    assert cbfs.open_files_count == cbfs.open_handles_count == cbfs.open_objects_count == 0


@pytest.mark.proves("get_open_file_handle_closed")
def test_a_file_closed_by_its_process_is_told_apart(mount: Mounting, client: Client) -> None:
    drive = mount(cbfsconnect.MemoryDrive())
    client.run(
        """
        file = os.open(at + "/f", os.O_RDWR | os.O_CREAT)
        copy = os.dup(file)
        os.close(file)
        """,
        at=drive.mountpoint,
    )
    drive.cbfs.create_opened_files_snapshot()
    assert drive.cbfs.get_open_file_handle_closed(1)


@pytest.mark.proves("release_unused_files")
def test_released_files_are_asked_for_anew(mount: Mounting, client: Client) -> None:
    record = Recorder(cbfsconnect.MemoryDrive())
    drive = mount(record)
    client.run("Path(at, 'f').write_text('x')", at=drive.mountpoint)
    record.wait_for("on_close_file")
    client.run("os.stat(at + '/f')")  # writing made the kernel forget how many blocks there are
    record.clear()
    client.run("os.stat(at + '/f')")
    assert not record.all("on_get_file_info", "/f"), "the kernel was to keep it"
    assert drive.cbfs.release_unused_files() is True
    client.run("os.stat(at + '/f')")
    assert record.all("on_get_file_info", "/f")


@pytest.mark.proves("release_unused_files")
def test_releasing_inside_a_handler_is_done_later(mount: Mounting, client: Client) -> None:
    record = Recorder(cbfsconnect.MemoryDrive())
    drive = mount(record)
    codes: list[int] = []

    def release(params: object) -> None:
        try:
            drive.cbfs.release_unused_files()
        except CBFSConnectError as error:
            codes.append(error.code)

    record.before["on_open_file"] = release
    client.run("os.mkdir(at + '/d'); os.listdir(at + '/d')", at=drive.mountpoint)
    assert codes == [cbfsconnect.ERROR_IO_PENDING]
