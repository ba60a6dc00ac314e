"""What must hold of the events of every mount, whatever was done with it."""

from __future__ import annotations

from collections.abc import Iterable

from cbfsconnect.testing.recording import Fired, place_of

_UNHEARD = (
    "on_close_file",
    "on_unlock_file",
    "on_close_directory_enumeration",
    "on_close_named_streams_enumeration",
    "on_close_hard_links_enumeration",
)
_OPENING = ("on_open_file", "on_create_file")
_LISTINGS = {
    "on_enumerate_directory": "on_close_directory_enumeration",
    "on_enumerate_named_streams": "on_close_named_streams_enumeration",
    "on_enumerate_hard_links": "on_close_hard_links_enumeration",
}


def surprises(fired: Iterable[Fired], log: Iterable[str]) -> list[str]:
    """What went wrong where no program hears it, or hears no more than EIO."""
    found = []
    for event in fired:
        if event.error is not None and not isinstance(event.error, OSError):
            found.append(
                f"{event.name}({event.path!r}) raised {event.error!r}\n"
                f"    at {place_of(event.error)}\n"
                "    A handler answers with OSError, or with result_code; all else is EIO."
            )
        elif event.name in _UNHEARD and event.left is not None and not event.succeeded:
            found.append(f"{event}\n    Nobody hears this error: what had to be freed is not.")
    if not found:
        found = [f"the library complained: {line}" for line in log]
    return found


def unbalanced(fired: list[Fired], *, fire_all: bool) -> list[str]:
    """What was opened and not closed exactly once, when the drive is unmounted."""
    problems = _handles(fired) if fire_all else _files(fired)
    for listing, closing in _LISTINGS.items():
        if any(f.name == closing for f in fired):
            problems += _enumerations(fired, listing, closing)
    return problems


def _handles(fired: list[Fired]) -> list[str]:
    """With fire_all_open_close_events: each handle is opened, cleaned up and closed once."""
    problems, steps = [], dict[int, list[str]]()
    paths = dict[int, str]()
    for event in fired:
        if event.name in _OPENING and not event.succeeded:
            continue
        if event.name in (*_OPENING, "on_cleanup_file", "on_close_file"):
            handle = event.given["handle_info"]
            steps.setdefault(handle, []).append(event.name)
            paths.setdefault(handle, event.path)
    for handle, names in steps.items():
        middle = names[1:-1]
        right = (
            names[0] in _OPENING
            and names[-1] == "on_close_file"
            and middle
            and set(middle) == {"on_cleanup_file"}
        )
        if not right:
            problems.append(f"handle {handle} of {paths[handle]!r}: {', '.join(names)}")
    return problems


def _files(fired: list[Fired]) -> list[str]:
    """Without: the first open and the last close of each item. Names change, numbers do not."""
    opened = sum(f.name in _OPENING and f.succeeded for f in fired)
    closed = sum(f.name == "on_close_file" for f in fired)
    cleaned = sum(f.name == "on_cleanup_file" for f in fired)
    if opened != closed:
        return [f"{opened} items were opened, {closed} closed"]
    if cleaned < closed:
        return [f"{closed} items were closed, but only {cleaned} on_cleanup_file came"]
    return []


def _enumerations(fired: list[Fired], listing: str, closing: str) -> list[str]:
    """Each listing that began has ended once."""
    if listing == "on_enumerate_directory":
        begun = sum(f.name == listing and f.given["restart"] for f in fired)
    else:
        # One request is one listing: it begins with an empty context, and ends with its close.
        begun, running = 0, set[str]()
        for event in fired:
            if event.name == listing and event.path not in running:
                begun += 1
                running.add(event.path)
            elif event.name == closing:
                running.discard(event.path)
    closed = sum(f.name == closing for f in fired)
    return (
        [] if begun == closed else [f"{begun} times {listing} began, {closed} times {closing} came"]
    )
