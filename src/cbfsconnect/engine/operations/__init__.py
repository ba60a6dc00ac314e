"""The operations: one function per kernel request, by the kind of thing it is about."""

from cbfsconnect.engine.operations import (  # noqa: F401 - each enters its functions into the table
    attributes,
    control,
    copying,
    creating,
    data,
    directories,
    lookup,
    names,
    opening,
    ranges,
    volume,
    xattrs,
)
from cbfsconnect.engine.operations.table import OPERATIONS, Operation, Reply

__all__ = ["OPERATIONS", "Operation", "Reply"]
