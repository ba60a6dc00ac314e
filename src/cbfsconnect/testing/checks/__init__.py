"""The checks, by what they are about. Importing this enters all of them into the list."""

# In the order in which they run.
# isort: off
from cbfsconnect.testing.checks import reading as _reading
from cbfsconnect.testing.checks import files as _files
from cbfsconnect.testing.checks import names as _names
from cbfsconnect.testing.checks import directories as _directories
from cbfsconnect.testing.checks import links as _links
from cbfsconnect.testing.checks import attributes as _attributes
from cbfsconnect.testing.checks import locks as _locks
from cbfsconnect.testing.checks import contexts as _contexts
from cbfsconnect.testing.checks import durability as _durability

# isort: on

__all__ = [
    "_attributes",
    "_contexts",
    "_directories",
    "_durability",
    "_files",
    "_links",
    "_locks",
    "_names",
    "_reading",
]
