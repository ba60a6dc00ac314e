"""Mounting recorded handlers for one client, and what tests of single events have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import cbfsconnect
from support.client import Client
from support.mounts import Mounting
from support.recorder import Recorder

both_settings = pytest.mark.parametrize("fire_all", [False, True], ids=["first_last", "fire_all"])
"""Runs a test with both settings of `fire_all_open_close_events`, as its argument `fire_all`."""


def serve(
    mount: Mounting, client: Client, handlers: object, *, fire_all: bool = False, **options: Any
) -> tuple[Recorder, cbfsconnect.CBFS]:
    """Mount handlers with a recorder around them; the client knows the mountpoint as `at`."""
    record = handlers if isinstance(handlers, Recorder) else Recorder(handlers)
    drive = mount(record, fire_all_open_close_events=fire_all, **options)
    client.run("", at=drive.mountpoint)
    return record, drive.cbfs


def set_contexts(record: Recorder, **contexts: tuple[object, object]) -> None:
    """Have events leave these file and handle contexts: `set_contexts(record, on_x=(f, h))`."""
    for event, (file_context, handle_context) in contexts.items():
        record.before[event] = _setter(file_context, handle_context)


def _setter(file_context: object, handle_context: object) -> Callable[[Any], None]:
    def set_them(params: Any) -> None:
        params.file_context, params.handle_context = file_context, handle_context

    return set_them


def read_only(params: Any, *names: str) -> None:
    """Check that a handler cannot assign these parameters."""
    for name in names:
        with pytest.raises(AttributeError):
            setattr(params, name, getattr(params, name))


def creator(cbfs: cbfsconnect.CBFS, handle_info: int) -> tuple[int, str, int, bool]:
    """What the methods for handlers tell of who opened a handle."""
    token = cbfs.get_handle_creator_token(handle_info)
    if token >= 0:
        os.close(token)
    return (
        cbfs.get_handle_creator_process_id(handle_info),
        cbfs.get_handle_creator_process_name(handle_info),
        cbfs.get_handle_creator_thread_id(handle_info),
        token >= 0,
    )


def creator_of(client: Client) -> tuple[int, str, int, bool]:
    """What `creator` gives for a handle that the client's (only) thread has opened."""
    program = client.call("os.path.realpath('/proc/self/exe')")
    return client.pid, program, client.pid, True
