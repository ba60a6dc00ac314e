"""File ids to paths, as `on_get_file_name_by_file_id` gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cbfsconnect.events import CBFSGetFileNameByFileIdEventParams

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine


def path_of_id(engine: Engine, file_id: int) -> str | None:
    """The path that `on_get_file_name_by_file_id` gives for an id, None when it has none."""
    handler = engine.on.on_get_file_name_by_file_id
    if handler is None:
        return None
    params = CBFSGetFileNameByFileIdEventParams(file_id)
    if engine.fire(handler, params):
        return None
    path = params.file_path
    separator = engine.options.separator
    if not isinstance(path, str) or not path.startswith(separator):
        problem = f"{path!r} is not an absolute path"
        engine.nonsense("on_get_file_name_by_file_id", f"id {file_id}", problem)
        return None
    if len(path) > engine.options.max_file_path_length:
        problem = f"the path has {len(path)} characters, more than max_file_path_length"
        engine.nonsense("on_get_file_name_by_file_id", f"id {file_id}", problem)
        return None
    return path
