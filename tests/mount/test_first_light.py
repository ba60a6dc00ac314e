"""The first thing anybody tries on a mounted drive."""

import cbfsconnect
from support.client import Client
from support.mounts import Mounting
from support.recorder import Recorder


def test_what_is_written_is_read_back(mount: Mounting, client: Client) -> None:
    record = Recorder(cbfsconnect.MemoryDrive())
    drive = mount(record)
    client.run(
        """
        file = Path(at, "greeting")
        file.write_text("hello")
        """,
        at=drive.mountpoint,
    )
    assert client.call("file.read_text()") == "hello"
    assert client.call("os.listdir(at)") == ["greeting"]
    assert record.wait_for("on_close_file")
    assert record.one("on_create_file").file_name == "/greeting"
