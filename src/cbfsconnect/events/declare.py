"""How an event is declared: one class of parameters, written once.

The class body of a params class *is* the declaration of its event::

    class CBFSWriteFileEventParams(EventParams, number=52, kernel="WRITE"):
        file_name: In[str]
        bytes_written: InOut[int] = 0

Static checkers and editors read the annotations (`In[str]` is a `str` to them). At run time the
metaclass makes slots of them, a constructor in the order of declaration, and read-only properties
of what is `In`. Everything else that must know the events (the `on_…` attributes, the reference
pages, the tests) reads `EVENTS`.
"""

from __future__ import annotations

import ctypes
import enum
import operator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    overload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Direction(enum.Enum):
    """Who gives the value of a parameter: the drive's user (`IN`), the handler (`OUT`), or both."""

    IN = "in"
    OUT = "out"
    INOUT = "in-out"


T = TypeVar("T")
In = Annotated[T, Direction.IN]
"""Given to the handler; assigning it raises `AttributeError`."""
Out = Annotated[T, Direction.OUT]
"""To be set by the handler; its default means "not given"."""
InOut = Annotated[T, Direction.INOUT]
"""Given to the handler, which may change it."""

Context = Any
"""A context: whatever the program stores there (an int in vendor programs); 0 when nothing is."""

EPOCH = datetime(1970, 1, 1)
"""The vendor's mark for "time not given": naive, UTC."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an event, as the reference pages show it."""

    name: str
    type: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Event:
    """One event of class CBFS."""

    name: str
    """The attribute of `CBFS` that takes the handler, such as `on_write_file`."""
    number: int
    """The vendor's number: the events of the class in the order of the alphabet, from 1."""
    kernel: str
    """What makes it fire on Linux: kernel requests, or the method in words."""
    enabled_by: str | None
    """The property that must be True for it to fire, if there is one."""
    params: type[EventParams]
    parameters: tuple[Parameter, ...]


EVENTS: dict[str, Event] = {}
"""Every event by the name of its attribute, in the order of declaration."""


_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    type: Any
    direction: Direction
    default: Any

    @property
    def slot(self) -> str:
        return "_" + self.name if self.direction is Direction.IN else self.name


def _fields(namespace: dict[str, Any]) -> Iterator[_Field]:
    for name, annotation in namespace.get("__annotations__", {}).items():
        if get_origin(annotation) is not Annotated:
            raise TypeError(f"{name}: declare a parameter as In[…], Out[…] or InOut[…]")
        kind, direction = get_args(annotation)
        yield _Field(name, kind, direction, namespace.get(name, _REQUIRED))


def _constructor(fields: list[_Field]) -> Any:
    """An `__init__` with one plain store per field: it runs once per event, so it must be quick."""
    defaults = {f"d_{f.name}": f.default for f in fields if f.default is not _REQUIRED}
    arguments = [f.name if f.default is _REQUIRED else f"{f.name}=d_{f.name}" for f in fields]
    body = "\n".join(f"    self.{f.slot} = {f.name}" for f in fields)
    scope: dict[str, Any] = dict(defaults)
    exec(f"def __init__(self, {', '.join(arguments)}):\n{body}\n", scope)
    return scope["__init__"]


def _register(
    cls: Any, fields: list[_Field], number: int, kernel: str, enabled_by: str | None
) -> None:
    known = {f.name: Parameter(f.name, _type_name(f.type), f.direction) for f in fields}
    for name, value in vars(cls).items():
        if isinstance(value, _Derived):
            source = known[value.field]
            known[name] = Parameter(name, value.type_name, source.direction)
    event = event_name(cls)
    EVENTS[event] = Event(event, number, kernel, enabled_by, cls, tuple(known.values()))


def _type_name(kind: Any) -> str:
    return str(getattr(kind, "__name__", None) or kind).replace("typing.", "")


def event_name(params: type) -> str:
    """`on_write_file` for `CBFSWriteFileEventParams`."""
    words = params.__name__.removeprefix("CBFS").removesuffix("EventParams")
    return "on" + "".join(f"_{c.lower()}" if c.isupper() else c for c in words)


@dataclass_transform(eq_default=False)
class ParamsType(type):
    """Builds a params class: slots, constructor and read-only properties from its annotations."""

    def __new__(  # noqa: D102
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        number: int = 0,
        kernel: str = "",
        enabled_by: str | None = None,
    ) -> Any:
        fields = list(_fields(namespace))
        slots = [field.slot for field in fields]
        for field in fields:
            namespace.pop(field.name, None)
            if field.direction is Direction.IN:
                namespace[field.name] = property(operator.attrgetter(field.slot))
        namespace.setdefault("__slots__", tuple(slots))
        if fields:
            namespace["__init__"] = _constructor(fields)
        cls = super().__new__(mcls, name, bases, namespace)
        if number:
            _register(cls, fields, number, kernel, enabled_by)
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: Any):
        super().__init__(name, bases, namespace)


class EventParams(metaclass=ParamsType):
    """What every params class is. Attributes that it does not declare may be assigned and are
    ignored: programs for other editions of the product do so."""

    __slots__ = ("__dict__",)

    def __repr__(self) -> str:
        """All parameters by name, for logs."""
        event = EVENTS[event_name(type(self))]
        shown = (f"{p.name}={getattr(self, p.name)!r}" for p in event.parameters)
        return f"{type(self).__name__}({', '.join(shown)})"


class _Derived:
    """A second view of a field: read from it and, where the field allows, written to it."""

    type_name = ""

    def __init__(self, field: str) -> None:
        self.field = field
        self._get = operator.attrgetter(field)


class UtcTime(_Derived):
    """The `datetime` view of a field of nanoseconds since 1970 (None: not given).

    Values are naive and in UTC, as the vendor's; aware ones are converted. 1970-01-01 00:00 stands
    for "not given", so a real time of that very moment needs the `…_ns` parameter. What lies before
    the year 1 or after 9999 is the first or last moment that a `datetime` can tell.
    """

    type_name = "datetime"

    @overload
    def __get__(self, params: None, owner: type) -> Self: ...
    @overload
    def __get__(self, params: EventParams, owner: type) -> datetime: ...
    def __get__(self, params: EventParams | None, owner: type) -> datetime | Self:
        if params is None:
            return self
        nanoseconds = self._get(params)
        if nanoseconds is None:
            return EPOCH
        try:
            return EPOCH + timedelta(microseconds=nanoseconds // 1000)
        except OverflowError:  # programs may set any 64-bit number of seconds
            return datetime.max if nanoseconds > 0 else datetime.min

    def __set__(self, params: EventParams, value: datetime) -> None:
        setattr(params, self.field, nanoseconds_of(value))


def nanoseconds_of(value: datetime) -> int | None:
    """Nanoseconds since 1970 of a datetime (naive: UTC), None for the mark "not given"."""
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    if value == EPOCH:
        return None
    return (value - EPOCH) // timedelta(microseconds=1) * 1000


class Address(_Derived):
    """The `ctypes.c_void_p` view of a memoryview field, for `ctypes.memmove`.

    An absent or empty buffer is `c_void_p(None)`. The memory is the library's and is valid only
    inside the handler; the pointer itself cannot be assigned.
    """

    type_name = "c_void_p"

    @overload
    def __get__(self, params: None, owner: type) -> Self: ...
    @overload
    def __get__(self, params: EventParams, owner: type) -> ctypes.c_void_p: ...
    def __get__(self, params: EventParams | None, owner: type) -> ctypes.c_void_p | Self:
        if params is None:
            return self
        view = self._get(params)
        if not view:
            return ctypes.c_void_p(None)
        return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(view)))

    def __set__(self, params: EventParams, value: Any) -> None:
        raise AttributeError("a buffer cannot be replaced: copy into it with ctypes.memmove")
