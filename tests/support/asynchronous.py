"""The same handlers as `async def`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from cbfsconnect import EVENTS


def made_async(handlers: object) -> SimpleNamespace:
    """An object whose handlers do what the given ones do, after letting others run once."""
    made = SimpleNamespace(
        **{name: _async(getattr(handlers, name)) for name in EVENTS if hasattr(handlers, name)}
    )
    if hasattr(handlers, "configure"):
        made.configure = handlers.configure
    return made


def _async(handler: Callable[[Any], object]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    @functools.wraps(handler)
    async def handle(params: Any) -> None:
        await asyncio.sleep(0)
        handler(params)

    return handle
