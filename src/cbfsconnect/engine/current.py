"""Which request an async handler serves: asked on a thread that serves many at once."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cbfsconnect.engine.flows import Flow

CURRENT: contextvars.ContextVar[Flow] = contextvars.ContextVar("cbfsconnect-request")
"""The request of the handler that asks, and of the tasks that it starts."""
