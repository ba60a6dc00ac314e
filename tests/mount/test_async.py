"""Handlers that are `async def`."""

from __future__ import annotations

import asyncio
import errno
import functools
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect
from cbfsconnect import CBFSConnectError
from cbfsconnect.errors import ERROR_ACCESS_DENIED, ERROR_INVALID_STATE
from support.client import Client
from support.gates import AsyncGate, wait_until, wait_until_blocked
from support.mounts import Mounting
from support.plain import PlainDrive

Clients = Callable[[], Client]

MANY_READERS = """
    import threading
    threading.stack_size(1 << 17)
    got = []

    def read(number):
        fd = os.open(f"{at}/{number}", os.O_RDONLY)
        got.append(os.read(fd, 100))
        os.close(fd)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = len(got), set(got)
"""
READ = "fd = os.open(at, os.O_RDONLY); result = os.read(fd, 100)"


def error_of(client: Client, code: str, **names: Any) -> int:
    """The errno with which the code fails, or with "" what was started before; 0: it does not."""
    try:
        if code:
            client.start(code, **names)
        client.finish()
    except OSError as error:
        return error.errno or -1
    return 0


class AsyncDrive(PlainDrive):
    """Reads and writes at a gate, when there is one."""

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.gate: AsyncGate | None = None
        self.threads: dict[str, set[str]] = {"async": set(), "plain": set()}

    def on_get_file_info(self, params: Any) -> None:
        """As any plain handler."""
        self.threads["plain"].add(threading.current_thread().name)
        super().on_get_file_info(params)

    async def on_read_file(self, params: Any) -> None:  # type: ignore[override]
        """Wait at the gate."""
        self.threads["async"].add(threading.current_thread().name)
        if self.gate is not None:
            await self.gate.wait()
        super().on_read_file(params)

    async def on_write_file(self, params: Any) -> None:  # type: ignore[override]
        """Wait at the gate."""
        if self.gate is not None:
            await self.gate.wait()
        super().on_write_file(params)


@pytest.fixture
def clients() -> Iterator[Clients]:
    """A function that starts one more client process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Client())


def test_a_thousand_slow_reads_need_no_thousand_threads(mount: Mounting, client: Client) -> None:
    drive = AsyncDrive(**{str(number): b"data" for number in range(1000)})
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    client.start(MANY_READERS, at=at, count=1000)
    drive.gate.wait_for(inside=1000)
    threads = threading.active_count()
    drive.gate.open()
    assert client.finish() == (1000, {b"data"})
    assert threads < 300  # there may be 256 workers, on a busy machine


def test_a_thousand_reads_through_the_page_cache_too(mount: Mounting, client: Client) -> None:
    drive = AsyncDrive(**{str(number): b"data" for number in range(1000)})
    drive.gate = AsyncGate()
    at = mount(drive).mountpoint
    client.start(MANY_READERS, at=at, count=1000)
    drive.gate.wait_for(inside=1000)
    drive.gate.open()
    assert client.finish() == (1000, {b"data"})


def test_async_and_plain_handlers_each_on_their_threads(mount: Mounting, client: Client) -> None:
    drive = AsyncDrive(file=b"data")
    at = mount(drive, file_cache=0, metadata_cache_enabled=False).mountpoint
    for _ in range(20):
        assert client.run(READ + "; os.stat(at); os.close(fd)", at=f"{at}/file") == b"data"
    assert drive.threads["async"] == {"cbfs-async"}
    assert "cbfs-async" not in drive.threads["plain"]


def test_a_plain_handler_after_an_async_one_may_block(mount: Mounting, clients: Clients) -> None:
    """The loop goes on meanwhile."""
    stuck, release = threading.Event(), threading.Event()

    class Mixed(AsyncDrive):
        async def on_open_file(self, params: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)

        def on_set_file_size(self, params: Any) -> None:
            if params.file_name == "/slow":
                stuck.set()
                assert release.wait(20)
            super().on_set_file_size(params)

    at = mount(Mixed(slow=b"12345", quick=b"data"), file_cache=0).mountpoint
    slow, quick = clients(), clients()
    slow.start("os.truncate(at, 2)", at=f"{at}/slow")
    assert stuck.wait(20)
    assert quick.run(READ, at=f"{at}/quick") == b"data"
    release.set()
    slow.finish()


def test_what_is_written_stays_intact_while_the_handler_waits(
    mount: Mounting, clients: Clients
) -> None:
    drive = AsyncDrive(one=b"", two=b"")
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    writers = [clients(), clients()]
    code = "fd = os.open(at, os.O_WRONLY); result = os.write(fd, data); os.close(fd)"
    for writer, name in zip(writers, ("one", "two"), strict=True):
        writer.start(code, at=f"{at}/{name}", data=name.encode() * 1000)
    drive.gate.wait_for(inside=2)
    drive.gate.open()
    assert [writer.finish() for writer in writers] == [3000, 3000]
    assert drive.items["/one"].data == b"one" * 1000
    assert drive.items["/two"].data == b"two" * 1000


def test_events_of_one_file_keep_their_order(mount: Mounting, clients: Clients) -> None:
    drive = AsyncDrive(file=b"", other=b"12345")
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    first, second, third = clients(), clients(), clients()
    write = "fd = os.open(at, os.O_WRONLY); os.pwrite(fd, data, 0)"
    first.start(write, at=f"{at}/file", data=b"first")
    drive.gate.wait_for(inside=1)
    second.start(write, at=f"{at}/file", data=b"then")
    wait_until_blocked(second)
    third.start(READ, at=f"{at}/other")
    drive.gate.wait_for(inside=2)  # that of another file; the second write waits for the first
    drive.gate.open()
    first.finish()
    second.finish()
    assert third.finish() == b"12345"
    assert drive.items["/file"].data == b"thent"


def test_a_directory_moves_when_the_reads_below_it_are_done(
    mount: Mounting, clients: Clients
) -> None:
    drive = AsyncDrive()
    drive.add_directory("/d")
    drive.add("/d/file", b"data")
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    reader, mover = clients(), clients()
    reader.start(READ, at=f"{at}/d/file")
    drive.gate.wait_for(inside=1)
    mover.start("os.rename(at + '/d', at + '/e')", at=at)
    wait_until_blocked(mover)
    assert "/d/file" in drive.items
    drive.gate.open()
    mover.finish()
    assert reader.finish() == b"data"
    assert "/e/file" in drive.items


# --- interruption -------------------------------------------------------------------------------


def test_a_killed_client_cancels_its_handler(mount: Mounting, client: Client) -> None:
    drive = AsyncDrive(file=b"data")
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    client.start(READ, at=f"{at}/file")
    drive.gate.wait_for(inside=1)
    client.kill()
    drive.gate.wait_for(cancelled=1)


def test_an_interrupted_client_gets_eintr(mount: Mounting, client: Client) -> None:
    drive = AsyncDrive(file=b"data")
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    client.run(
        """
        import signal
        def stop(number, frame): raise KeyError("stopped")
        signal.signal(signal.SIGINT, stop)
        fd = os.open(at, os.O_RDONLY)
        """,
        at=f"{at}/file",
    )
    client.start("try: os.read(fd, 10)\nexcept KeyError: result = 'stopped'")
    drive.gate.wait_for(inside=1)
    client.process.send_signal(signal.SIGINT)
    assert client.finish() == "stopped"
    drive.gate.wait_for(cancelled=1)


def test_a_timer_does_not_interrupt(mount: Mounting, client: Client) -> None:
    """Programs with timers do not expect a read of a file to fail with EINTR."""
    drive = AsyncDrive(file=b"data")
    drive.gate = AsyncGate()
    mounted = mount(drive, file_cache=0)
    session, at = mounted.cbfs._session, mounted.mountpoint
    assert session is not None
    flows = session.flows
    assert flows is not None
    client.run(
        """
        import signal
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        fd = os.open(at, os.O_RDONLY)
        """,
        at=f"{at}/file",
    )
    client.start("result = os.read(fd, 10)")
    drive.gate.wait_for(inside=1)
    client.process.send_signal(signal.SIGALRM)
    client.process.send_signal(signal.SIGCHLD)
    wait_until(lambda: bool(flows._interrupted))  # it has been told, and lets the handler go on
    drive.gate.open()
    assert client.finish() == b"data"
    assert drive.gate.cancelled == 0


def test_who_is_killed_in_the_line_of_a_file_never_comes_to_its_handler(
    mount: Mounting, clients: Clients
) -> None:
    drive = AsyncDrive(file=b"data")
    drive.gate = AsyncGate()
    at = mount(drive, file_cache=0).mountpoint
    first, second = clients(), clients()
    first.start("fd = os.open(at, os.O_RDWR); os.pwrite(fd, b'x', 0)", at=f"{at}/file")
    drive.gate.wait_for(inside=1)
    second.start(READ, at=f"{at}/file")
    wait_until_blocked(second)
    second.kill()  # returns when it is gone
    drive.gate.open()
    first.finish()
    assert drive.gate.inside == 1


def test_a_close_is_not_cancelled(mount: Mounting, client: Client) -> None:
    gate, cleaned = AsyncGate(), threading.Event()

    class Cleaning(PlainDrive):
        async def on_cleanup_file(self, params: Any) -> None:  # type: ignore[override]
            await gate.wait()
            cleaned.set()

    at = mount(Cleaning(file=b"data"), fire_all_open_close_events=True).mountpoint
    client.run("fd = os.open(at, os.O_RDWR)", at=f"{at}/file")
    client.start("os.close(fd)")
    gate.wait_for(inside=1)
    client.process.send_signal(signal.SIGKILL)
    gate.open()
    assert cleaned.wait(20)
    assert gate.cancelled == 0


# --- outcomes -----------------------------------------------------------------------------------


def _raise_oserror(params: Any) -> None:
    raise OSError(errno.EDQUOT, "no more")


def _raise_unexpected(params: Any) -> None:
    raise ValueError("unexpected")


def _set_result(params: Any) -> None:
    params.result_code = ERROR_ACCESS_DENIED


def _raise_cancelled(params: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("behaviour", "expected", "told"),
    [
        (_raise_oserror, errno.EDQUOT, False),
        (_raise_unexpected, errno.EIO, True),
        (_set_result, errno.EACCES, False),
        (_raise_cancelled, errno.EIO, True),
    ],
)
def test_outcomes_are_those_of_plain_handlers(
    behaviour: Callable[[Any], None], expected: int, told: bool, mount: Mounting, client: Client
) -> None:
    heard = threading.Event()

    class Failing(PlainDrive):
        async def on_read_file(self, params: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            behaviour(params)

        async def on_error(self, params: Any) -> None:
            await asyncio.sleep(0)
            heard.set()

    at = mount(Failing(file=b"data"), file_cache=0).mountpoint
    assert error_of(client, READ, at=f"{at}/file") == expected
    assert heard.wait(20 if told else 0) == told
    assert client.call("os.stat(at).st_size", at=f"{at}/file") == 4


def test_an_event_that_times_out_is_answered_in_time(mount: Mounting, client: Client) -> None:
    gate = AsyncGate()

    class Slow(PlainDrive):
        async def on_read_file(self, params: Any) -> None:  # type: ignore[override]
            if params.file_name == "/slow":
                assert drive.cbfs.reset_timeout(50)
                await gate.wait()
            super().on_read_file(params)

    drive = mount(Slow(slow=b"data", quick=b"data"), file_cache=0, timeout=3000)
    at = drive.mountpoint
    assert error_of(client, READ, at=f"{at}/slow") == errno.ETIMEDOUT
    gate.wait_for(cancelled=1)
    assert client.run(READ, at=f"{at}/quick") == b"data"


def test_a_plain_handler_of_an_async_drive_has_a_clock_too(mount: Mounting, client: Client) -> None:
    """The time of a request is counted once, wherever it runs."""
    answered, done, given = threading.Event(), threading.Event(), []

    class Slow(AsyncDrive):
        def on_set_file_size(self, params: Any) -> None:
            given.append(drive.cbfs.reset_timeout(50))
            assert answered.wait(20)
            given.append(drive.cbfs.reset_timeout(1000))
            done.set()

    drive = mount(Slow(file=b"data"), file_cache=0)
    assert error_of(client, "os.truncate(at, 2)", at=f"{drive.mountpoint}/file") == errno.ETIMEDOUT
    answered.set()
    assert done.wait(20)
    assert given == [True, False]


def test_originators_are_known_after_an_await(mount: Mounting, client: Client) -> None:
    asked = []

    class Asking(PlainDrive):
        async def on_open_file(self, params: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            asked.append(await asyncio.create_task(self.ask()))

        async def ask(self) -> int:
            return drive.cbfs.get_originator_process_id()

    drive = mount(Asking(file=b""))
    client.run("open(at).close()", at=f"{drive.mountpoint}/file")
    assert asked == [client.pid]


# --- the drive's life ---------------------------------------------------------------------------


def test_unmounting_by_force_cancels_stuck_handlers(mount: Mounting, client: Client) -> None:
    drive = AsyncDrive(file=b"data")
    drive.gate = AsyncGate()
    mounted = mount(drive, file_cache=0)
    client.start(READ, at=f"{mounted.mountpoint}/file")
    drive.gate.wait_for(inside=1)
    mounted.unmount(force=True)
    drive.gate.wait_for(cancelled=1)
    assert error_of(client, "") != 0


def test_events_of_the_volume(mount: Mounting, client: Client) -> None:
    fired = []

    class Volume(PlainDrive):
        async def on_mount(self, params: Any) -> None:
            await asyncio.sleep(0)
            fired.append("mount")

        async def on_unmount(self, params: Any) -> None:
            await asyncio.sleep(0)
            fired.append("unmount")

        async def on_get_volume_size(  # type: ignore[override]
            self, params: Any
        ) -> None:
            await asyncio.sleep(0)
            params.total_sectors = 1000

    drive = mount(Volume())
    volume = client.call("tuple(os.statvfs(at))", at=drive.mountpoint)
    assert volume[1] * volume[2] == 1000 * 512  # f_frsize, f_blocks
    drive.unmount(force=True)
    assert fired == ["mount", "unmount"]


def test_serialized_events_are_never_two_at_a_time(mount: Mounting, clients: Clients) -> None:
    class Counting(PlainDrive):
        now = most = 0

        async def on_read_file(self, params: Any) -> None:  # type: ignore[override]
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            super().on_read_file(params)
            self.now -= 1

    drive = Counting(one=b"data", two=b"data")
    at = mount(drive, file_cache=0, serialize_events=True).mountpoint
    readers = [clients(), clients()]
    for reader, name in zip(readers, ("one", "two"), strict=True):
        reader.start(READ + "\nfor _ in range(50): os.pread(fd, 9, 0)", at=f"{at}/{name}")
    for reader in readers:
        assert reader.finish() == b"data"
    assert drive.most == 1


def test_every_kind_of_async_callable(mount: Mounting, client: Client) -> None:
    class Callable_:
        async def __call__(self, params: Any) -> None:
            await asyncio.sleep(0)
            PlainDrive.on_read_file(plain, params)

    async def read(drive: PlainDrive, params: Any) -> None:
        await asyncio.sleep(0)
        PlainDrive.on_read_file(drive, params)

    plain = PlainDrive(file=b"data")
    drive = mount(plain, file_cache=0)
    for handler in (Callable_(), functools.partial(read, plain)):
        drive.cbfs.on_read_file = handler  # while it is mounted
        assert drive.cbfs.on_read_file is handler
        assert client.run(READ, at=f"{drive.mountpoint}/file") == b"data"


# --- the program's own loop ---------------------------------------------------------------------


@pytest.mark.proves("event_loop")
def test_handlers_run_on_the_programs_own_loop(tmp_path: Path, client: Client) -> None:
    async def program() -> None:
        loops = []

        class Noting(PlainDrive):
            async def on_read_file(self, params: Any) -> None:  # type: ignore[override]
                loops.append(asyncio.get_running_loop())
                super().on_read_file(params)

            def configure(self, cbfs: cbfsconnect.CBFS) -> None:
                cbfs.event_loop = loop

        loop = asyncio.get_running_loop()
        drive = await asyncio.to_thread(
            cbfsconnect.mount, Noting(file=b"data"), tmp_path, file_cache=0
        )
        try:
            read = await asyncio.to_thread(client.run, READ, at=f"{tmp_path}/file")
            assert read == b"data"
            with pytest.raises(CBFSConnectError, match="to_thread") as caught:
                drive.unmount()
            assert caught.value.code == ERROR_INVALID_STATE
            with pytest.raises(CBFSConnectError) as caught:
                drive.cbfs.event_loop = None
            assert caught.value.code == ERROR_INVALID_STATE
        finally:
            await asyncio.to_thread(drive.unmount, force=True)
        assert loops == [loop]

    asyncio.run(program())


def test_a_mount_without_async_handlers_does_not_load_asyncio(tmp_path: Path) -> None:
    code = """
        import sys
        from cbfsconnect import MemoryDrive, mount
        with mount(MemoryDrive(), sys.argv[1]):
            print("asyncio" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
