"""How the properties of class CBFS are declared: type, default, when they may change.

A property `x` is three members, as in the vendor's edition: `get_x()`, `set_x(value)` (absent for
read-only ones) and `x` itself. All three come from one declaration in the class body.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import Enum
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from cbfsconnect.errors import ERROR_INVALID_PARAMETER, ERROR_INVALID_STATE, CBFSConnectError


class Change(Enum):
    """When a property may be changed; never inside an event handler."""

    ANY = "at any time"
    INACTIVE = "only while no media is mounted: call unmount_media first"
    BEFORE_STORAGE = "only before create_storage: call delete_storage first"
    NEVER = "never: it is read-only"


class Owner(Protocol):
    """What a property needs of the object it belongs to."""

    _values: dict[str, Any]

    @property
    def active(self) -> bool:
        """Whether media is mounted."""

    @property
    def storage_present(self) -> bool:
        """Whether the drive exists."""

    def _refuse_in_event(self, what: str) -> None: ...


T = TypeVar("T", bool, int, str)


class Property(Generic[T]):
    """One property of class CBFS. Assigning what is not of its type, or at the wrong time, raises
    `CBFSConnectError`."""

    def __init__(
        self,
        default: T,
        change: Change,
        doc: str,
        allowed: Container[Any] | Callable[[T], bool] | None = None,
    ) -> None:
        self.default: T = default
        self.change = change
        self.name = ""
        self.__doc__ = doc
        self._allowed: Container[Any] | Callable[[T], bool] | None = allowed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        setattr(owner, f"get_{name}", lambda instance: getattr(instance, name))
        if self.change is not Change.NEVER:
            setattr(owner, f"set_{name}", lambda instance, value: setattr(instance, name, value))

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Owner, owner: type) -> T: ...
    def __get__(self, instance: Owner | None, owner: type) -> T | Self:
        if instance is None:
            return self
        value: T = instance._values.get(self.name, self.default)
        return value

    def __set__(self, instance: Owner, value: T) -> None:
        instance._refuse_in_event(f"change {self.name}")
        late = (self.change is Change.INACTIVE and instance.active) or (
            self.change is Change.BEFORE_STORAGE and instance.storage_present
        )
        if late or self.change is Change.NEVER:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, f"{self.name} may be changed {self.change.value}"
            )
        instance._values[self.name] = self._checked(value)

    def _checked(self, value: Any) -> Any:
        kind = type(self.default)
        if kind is bool and value in (0, 1):  # vendor samples give 0 and 1 for booleans
            return bool(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise CBFSConnectError(
                ERROR_INVALID_PARAMETER, f"{self.name} takes {kind.__name__}, not {value!r}"
            )
        allowed = self._allowed
        good = allowed is None or (allowed(value) if callable(allowed) else value in allowed)
        if not good:
            raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"{value!r} is no {self.name}")
        return value
