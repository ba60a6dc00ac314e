"""Ready-made drives: handler sets on the public API only, as any program would write them."""

from cbfsconnect.drives.memory import MemoryDrive

__all__ = ["MemoryDrive"]
