"""A plain drive whose files may have several names."""

from __future__ import annotations

import posixpath
from typing import Any

from cbfsconnect import ROOT_FILE_ID
from support.plain import PlainDrive


class LinkingDrive(PlainDrive):
    """All names of a file share one `Item`. Enumeration contexts are positions."""

    def names(self, path: str) -> list[str]:
        """Every path of a file."""
        item = self.items[path]
        return [other for other, candidate in list(self.items.items()) if candidate is item]

    def directory_id(self, path: str) -> int:
        """The file id of the directory that a path is in."""
        parent = posixpath.dirname(path)
        return ROOT_FILE_ID if parent == "/" else self.items[parent].file_id

    def on_get_file_info(self, p: Any) -> None:
        super().on_get_file_info(p)
        if p.file_name in self.items:
            p.hard_link_count = len(self.names(p.file_name))

    def on_create_hard_link(self, p: Any) -> None:
        self.items[p.link_name] = self.items[p.file_name]

    def on_enumerate_hard_links(self, p: Any) -> None:
        names = self.names(p.file_name)
        if p.enumeration_context < len(names):
            path = names[p.enumeration_context]
            p.link_found, p.link_name = True, posixpath.basename(path)
            p.parent_id = self.directory_id(path)
            p.enumeration_context += 1

    def on_close_hard_links_enumeration(self, p: Any) -> None:
        pass
