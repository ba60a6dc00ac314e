"""The declaration of events: complete, typed, read-only where the contract says so."""

from __future__ import annotations

import ctypes
import inspect
import typing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cbfsconnect as c
from cbfsconnect import CBFS, EVENTS, Direction, EventParams
from cbfsconnect.events.declare import EPOCH, event_name, nanoseconds_of
from cbfsconnect.fuse.abi import Opcode
from support.kernel import ROOT, Kernel
from support.plain import PlainDrive
from support.recorder import Recorder

# Per event: its number, what is given, what may be changed or is expected. A type follows a colon;
# without one it is int. "!" marks what this edition adds to the contract's parameters.
CONTRACT = {
    "on_can_file_be_deleted": (
        1,
        "file_name:str handle_info",
        "file_context handle_context can_be_deleted:bool result_code",
    ),
    "on_cleanup_file": (2, "file_name:str handle_info file_context handle_context", "result_code"),
    "on_close_directory_enumeration": (
        3,
        "directory_name:str enumeration_context",
        "directory_context result_code",
    ),
    "on_close_file": (
        4,
        "file_name:str delete_file:bool handle_info file_context handle_context",
        "result_code",
    ),
    "on_close_hard_links_enumeration": (
        5,
        "file_name:str handle_info enumeration_context",
        "file_context handle_context result_code",
    ),
    "on_close_named_streams_enumeration": (
        6,
        "file_name:str handle_info enumeration_context",
        "file_context handle_context result_code",
    ),
    "on_create_file": (
        8,
        "file_name:str desired_access attributes share_mode nt_create_disposition "
        "nt_desired_access file_info handle_info !mode !uid !gid !rdev",
        "file_context handle_context result_code",
    ),
    "on_create_hard_link": (
        9,
        "file_name:str link_name:str handle_info",
        "file_context handle_context result_code",
    ),
    "on_delete_file": (10, "file_name:str", "file_context result_code"),
    "on_delete_reparse_point": (
        11,
        "file_name:str reparse_buffer:c_void_p !reparse_buffer_view:memoryview "
        "reparse_buffer_length handle_info",
        "file_context handle_context result_code",
    ),
    "on_ejected": (12, "", "result_code"),
    "on_enumerate_directory": (
        13,
        "directory_name:str mask:str case_sensitive:bool restart:bool handle_info",
        "file_found:bool file_name:str short_file_name:str creation_time:datetime "
        "last_access_time:datetime last_write_time:datetime change_time:datetime size "
        "allocation_size file_id attributes reparse_tag directory_context handle_context "
        "enumeration_context result_code !creation_time_ns !last_access_time_ns "
        "!last_write_time_ns !change_time_ns !hard_link_count !mode !uid !gid !rdev",
    ),
    "on_enumerate_hard_links": (
        14,
        "file_name:str handle_info",
        "link_found:bool link_name:str parent_id file_context handle_context "
        "enumeration_context result_code",
    ),
    "on_enumerate_named_streams": (
        15,
        "file_name:str handle_info",
        "named_stream_found:bool stream_name:str stream_size stream_allocation_size "
        "file_context handle_context enumeration_context result_code",
    ),
    "on_error": (16, "error_code description:str", ""),
    "on_flush_file": (17, "file_name:str file_context", "result_code"),
    "on_get_file_info": (
        20,
        "file_name:str !file_context",
        "file_exists:bool creation_time:datetime last_access_time:datetime "
        "last_write_time:datetime change_time:datetime size allocation_size file_id attributes "
        "hard_link_count short_file_name:str real_file_name:str result_code !creation_time_ns "
        "!last_access_time_ns !last_write_time_ns !change_time_ns !reparse_tag !mode !uid !gid "
        "!rdev",
    ),
    "on_get_file_name_by_file_id": (21, "file_id", "file_path:str result_code"),
    "on_get_reparse_point": (
        23,
        "file_name:str reparse_buffer:c_void_p !reparse_buffer_view:memoryview handle_info",
        "reparse_buffer_length file_context handle_context result_code",
    ),
    "on_get_volume_id": (24, "", "volume_id result_code"),
    "on_get_volume_label": (25, "", "buffer:str result_code"),
    "on_get_volume_size": (27, "", "total_sectors available_sectors result_code"),
    "on_is_directory_empty": (
        29,
        "directory_name:str",
        "is_empty:bool directory_context result_code",
    ),
    "on_lock_file": (
        30,
        "file_name:str byte_offset length exclusive_lock:bool fail_immediately:bool handle_info",
        "file_context handle_context result_code",
    ),
    "on_mount": (31, "", "result_code"),
    "on_open_file": (
        34,
        "file_name:str desired_access attributes share_mode nt_create_disposition "
        "nt_desired_access file_info handle_info",
        "file_context handle_context result_code",
    ),
    "on_read_file": (
        36,
        "file_name:str position buffer:c_void_p !buffer_view:memoryview bytes_to_read handle_info",
        "bytes_read file_context handle_context result_code",
    ),
    "on_rename_or_move_file": (
        37,
        "file_name:str new_file_name:str !exchange:bool",
        "file_context result_code",
    ),
    "on_set_allocation_size": (
        38,
        "file_name:str allocation_size handle_info",
        "file_context handle_context result_code",
    ),
    "on_set_file_attributes": (
        40,
        "file_name:str creation_time:datetime last_access_time:datetime last_write_time:datetime "
        "change_time:datetime attributes handle_info !creation_time_ns !last_access_time_ns "
        "!last_write_time_ns !change_time_ns !mode !uid !gid",
        "file_context handle_context result_code",
    ),
    "on_set_file_size": (
        42,
        "file_name:str size handle_info",
        "file_context handle_context result_code",
    ),
    "on_set_reparse_point": (
        44,
        "file_name:str reparse_tag reparse_buffer:c_void_p !reparse_buffer_view:memoryview "
        "reparse_buffer_length handle_info",
        "file_context handle_context result_code",
    ),
    "on_unlock_file": (
        48,
        "file_name:str byte_offset length handle_info",
        "file_context handle_context result_code",
    ),
    "on_unmount": (49, "", "result_code"),
    "on_worker_thread_creation": (50, "", "result_code"),
    "on_worker_thread_termination": (51, "", ""),
    "on_write_file": (
        52,
        "file_name:str position buffer:c_void_p !buffer_view:memoryview bytes_to_write handle_info",
        "bytes_written file_context handle_context result_code",
    ),
}
ENABLED_BY = {
    "on_create_hard_link": "use_hard_links",
    "on_enumerate_hard_links": "use_hard_links",
    "on_close_hard_links_enumeration": "use_hard_links",
    "on_set_reparse_point": "use_reparse_points",
    "on_get_reparse_point": "use_reparse_points",
    "on_delete_reparse_point": "use_reparse_points",
    "on_enumerate_named_streams": "use_alternate_data_streams",
    "on_close_named_streams_enumeration": "use_alternate_data_streams",
    "on_is_directory_empty": "use_directory_empty_check",
}
TIMED = [
    c.CBFSGetFileInfoEventParams,
    c.CBFSEnumerateDirectoryEventParams,
    c.CBFSSetFileAttributesEventParams,
]


def parse(words: str) -> dict[str, str]:
    """Name to type."""
    pairs = (word.removeprefix("!").partition(":") for word in words.split())
    return {name: kind or "int" for name, _, kind in pairs}


def make(event: str, **given: Any) -> Any:
    """A params object of an event, with zeros where nothing is given."""
    cls = EVENTS[event].params
    known = inspect.signature(cls.__init__).parameters.values()
    named = [p for p in known if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    required = {p.name: 0 for p in named if p.default is p.empty}
    return cls(**required | given)


# --- what there is ---


def test_every_event_of_the_contract_is_there() -> None:
    assert CONTRACT.keys() <= EVENTS.keys()


@pytest.mark.parametrize("event", CONTRACT)
def test_names_numbers_and_directions(event: str) -> None:
    number, given_, changeable = CONTRACT[event]
    declared = EVENTS[event]
    assert declared.name == event
    assert declared.number == number
    directions = {p.name: p.direction for p in declared.parameters}
    assert {n for n, d in directions.items() if d is Direction.IN} == parse(given_).keys()
    assert {n for n, d in directions.items() if d is not Direction.IN} == parse(changeable).keys()
    assert declared.enabled_by == ENABLED_BY.get(event)
    assert declared.kernel


@pytest.mark.parametrize("event", CONTRACT)
def test_types(event: str) -> None:
    _, given_, changeable = CONTRACT[event]
    expected = parse(given_) | parse(changeable)
    for parameter in EVENTS[event].parameters:
        if parameter.name.endswith("_context"):
            continue  # any object; the contract's programs use int
        assert parameter.type.removesuffix(" | None") == expected[parameter.name], parameter.name


def test_numbers_are_those_of_the_alphabet() -> None:
    numbers = [e.number for e in sorted(EVENTS.values(), key=lambda e: e.name)]
    assert numbers == sorted(set(numbers))
    assert max(numbers) == 52


def test_enabling_properties_exist() -> None:
    for event in EVENTS.values():
        assert event.enabled_by is None or hasattr(CBFS, event.enabled_by)


@pytest.mark.parametrize("event", EVENTS)
def test_params_classes_are_exported_and_explained(event: str) -> None:
    params = EVENTS[event].params
    words = "".join(word.capitalize() for word in event.removeprefix("on_").split("_"))
    assert params.__name__ == f"CBFS{words}EventParams"
    assert getattr(c, params.__name__) is params
    assert event_name(params) == event
    assert params.__doc__
    assert params.__doc__ != EventParams.__doc__


# --- the attributes of class CBFS ---


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_an_attribute_that_takes_a_handler(event: str) -> None:
    cbfs = CBFS()
    assert getattr(cbfs, event) is None

    def handler(params: object) -> None:
        """Does nothing."""

    setattr(cbfs, event, handler)
    assert getattr(cbfs, event) is handler
    setattr(cbfs, event, None)
    assert getattr(cbfs, event) is None
    for nonsense in (5, "on_mount", object()):
        with pytest.raises(TypeError, match=event):
            setattr(cbfs, event, nonsense)
    slot = getattr(CBFS, event)
    assert slot.params is EVENTS[event].params
    assert slot.__doc__ == slot.params.__doc__


def test_handlers_of_two_objects_are_apart() -> None:
    one, two = CBFS(), CBFS()
    one.on_mount = print
    assert two.on_mount is None


def test_an_object_gives_its_methods_as_handlers() -> None:
    class Handlers:
        def on_mount(self, params: c.CBFSMountEventParams) -> None:
            """Mounted."""

        def other(self) -> None:
            """No handler."""

    handlers = Handlers()
    cbfs = CBFS()
    cbfs.set_handlers(handlers)
    assert cbfs.on_mount == handlers.on_mount
    assert cbfs.on_unmount is None


def test_a_misspelt_handler_is_noticed() -> None:
    class Handlers:
        def on_mout(self, params: object) -> None:
            """Never called."""

    with pytest.raises(TypeError, match="on_mout"):
        CBFS().set_handlers(Handlers())
    with pytest.raises(TypeError, match="no on_"):
        CBFS().set_handlers(object())


# --- params objects ---


@pytest.mark.parametrize("event", EVENTS)
def test_given_parameters_cannot_be_changed(event: str) -> None:
    params = make(event)
    for parameter in EVENTS[event].parameters:
        if parameter.direction is Direction.IN:
            with pytest.raises(AttributeError):
                setattr(params, parameter.name, 1)


@pytest.mark.parametrize("event", CONTRACT)
def test_other_parameters_keep_what_is_assigned(event: str) -> None:
    params = make(event)
    for parameter in EVENTS[event].parameters:
        if parameter.direction is not Direction.IN and parameter.type != "datetime":
            value = object()
            setattr(params, parameter.name, value)
            assert getattr(params, parameter.name) is value


@pytest.mark.parametrize("event", CONTRACT)
def test_beginning_values(event: str) -> None:
    params = make(event)
    names = {p.name for p in EVENTS[event].parameters}
    for name in names & {"result_code", "file_context", "handle_context", "enumeration_context"}:
        assert getattr(params, name) == 0
    for name in names & {"file_exists", "file_found", "link_found", "named_stream_found"}:
        assert getattr(params, name) is False


@pytest.mark.parametrize("event", EVENTS)
def test_attributes_of_other_editions_are_tolerated(event: str) -> None:
    params = make(event)
    params.volume_label_of_2024 = "ignored"
    assert params.volume_label_of_2024 == "ignored"
    with pytest.raises(AttributeError):
        _ = params.never_assigned


@pytest.mark.parametrize("event", EVENTS)
def test_repr_shows_every_parameter(event: str) -> None:
    params = make(event)
    text = repr(params)
    assert text.startswith(type(params).__name__ + "(")
    for parameter in EVENTS[event].parameters:
        assert f"{parameter.name}={getattr(params, parameter.name)!r}" in text


def test_required_parameters_are_required() -> None:
    with pytest.raises(TypeError):
        c.CBFSOpenFileEventParams()  # type: ignore[call-arg]


def test_an_annotation_must_say_its_direction() -> None:
    with pytest.raises(TypeError, match="size"):

        class Undirected(EventParams):
            size: int


def test_a_declaration_is_understood_by_type_checkers() -> None:
    hints = typing.get_type_hints(c.CBFSReadFileEventParams)
    assert hints["file_name"] is str
    assert hints["bytes_read"] is int


# --- times ---


@pytest.mark.parametrize("params", TIMED)
def test_times_have_two_views(params: type[EventParams]) -> None:
    event = event_name(params)
    value = 1_234_567_890_123_456_789
    for name in ("creation", "last_access", "last_write", "change"):
        timed = make(event)
        assert getattr(timed, f"{name}_time_ns") is None
        assert getattr(timed, f"{name}_time") == datetime(1970, 1, 1)
        timed = make(event, **{f"{name}_time_ns": value})
        shown = getattr(timed, f"{name}_time")
        assert shown == datetime(2009, 2, 13, 23, 31, 30, 123456)
        assert shown.tzinfo is None


@pytest.mark.parametrize("params", TIMED[:2])
def test_times_may_be_assigned_in_either_view(params: type[EventParams]) -> None:
    timed = make(event_name(params))
    timed.last_write_time = datetime(2001, 2, 3, 4, 5, 6, 789)
    assert timed.last_write_time_ns == 981173106_000789000
    timed.last_write_time_ns = 5_999
    assert timed.last_write_time == datetime(1970, 1, 1, 0, 0, 0, 5)
    timed.last_write_time = datetime(2001, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert timed.last_write_time == datetime(2001, 1, 1)
    timed.last_write_time = EPOCH
    assert timed.last_write_time_ns is None
    timed.last_write_time_ns = -1
    assert timed.last_write_time == datetime(1969, 12, 31, 23, 59, 59, 999999)


def test_given_times_cannot_be_changed_in_either_view() -> None:
    timed = make("on_set_file_attributes", last_write_time_ns=5)
    with pytest.raises(AttributeError):
        timed.last_write_time_ns = 6
    with pytest.raises(AttributeError):
        timed.last_write_time = datetime(2001, 1, 1)
    assert timed.last_write_time_ns == 5


def test_times_beyond_all_datetimes() -> None:
    params: Any = make("on_get_file_info")
    for seconds, shown in ((10**12, datetime.max), (-(10**12), datetime.min)):
        params.last_write_time_ns = seconds * 10**9
        assert params.last_write_time == shown


@given(st.datetimes())
def test_datetimes_survive(value: datetime) -> None:
    nanoseconds = nanoseconds_of(value)
    back = EPOCH if nanoseconds is None else EPOCH + timedelta(microseconds=nanoseconds // 1000)
    assert back == value
    assert nanoseconds_of(value.replace(tzinfo=UTC)) == nanoseconds


# --- buffers ---


def test_an_address_is_for_memmove() -> None:
    memory = bytearray(16)
    params = make("on_read_file", buffer_view=memoryview(memory)[4:12], bytes_to_read=8)
    assert isinstance(params.buffer, ctypes.c_void_p)
    source = (ctypes.c_uint8 * 3).from_buffer(bytearray(b"abc"))
    ctypes.memmove(params.buffer, source, 3)
    assert memory == b"\0\0\0\0abc\0\0\0\0\0\0\0\0\0"
    assert params.buffer_view.obj is memory
    target = bytearray(3)
    ctypes.memmove((ctypes.c_uint8 * 3).from_buffer(target), params.buffer, 3)
    assert target == b"abc"


@pytest.mark.parametrize("view", [None, memoryview(b""), memoryview(bytearray())])
def test_an_absent_buffer_is_a_null_pointer(view: memoryview | None) -> None:
    params = make("on_read_file", buffer_view=view)
    assert params.buffer.value is None


def test_a_buffer_cannot_be_replaced() -> None:
    params = make("on_write_file", buffer_view=memoryview(bytearray(3)))
    for name in ("buffer", "buffer_view"):
        with pytest.raises(AttributeError):
            setattr(params, name, ctypes.c_void_p(0))


# --- what no mount can cause ---


def test_a_flush_of_the_whole_drive_has_no_name() -> None:
    """The kernel sends SYNCFS to servers on virtio only."""
    record = Recorder(PlainDrive())
    with Kernel(record) as kernel:
        kernel.call(Opcode.SYNCFS, ROOT, bytes(8))
    fired = record.one("on_flush_file")
    assert fired.given == {"file_name": "", "file_context": 0, "result_code": 0}
