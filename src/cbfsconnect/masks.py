"""File masks as Windows matches them.

The wildcards of FsRtlIsNameInExpression: `*` and `?`, and the three that FindFirstFile puts in
their place to match as MS-DOS did: `<` (any run of characters up to the last period), `>` (one
character, or none at a period or at the end) and `"` (a period, or nothing at the end).
"""

from __future__ import annotations

_ANY, _ONE = "*", "?"
_DOS_STAR, _DOS_ONE, _DOS_DOT = "<", ">", '"'


def matches(mask: str, name: str, case_sensitive: bool) -> bool:
    """Whether a name (no path) matches a mask; an empty mask matches like `*`."""
    if mask in ("", "*", "*.*"):
        return True
    if not case_sensitive:
        mask, name = mask.upper(), name.upper()
    return _run(_to_dos(mask), name)


def _to_dos(mask: str) -> str:
    """What FindFirstFile makes of a mask before the filesystem sees it."""
    if mask.endswith("*."):
        mask = mask[:-2] + _DOS_STAR
    out: list[str] = []
    for place, character in enumerate(mask):
        following = mask[place + 1 : place + 2]
        if character == _ONE:
            out.append(_DOS_ONE)
        elif character == "." and following and following in _ANY + _ONE:
            out.append(_DOS_DOT)
        elif character == _ANY and following == ".":
            out.append(_DOS_STAR)
        else:
            out.append(character)
    return "".join(out)


def _run(mask: str, name: str) -> bool:
    """Follow all ways through the mask at once: `places` are where they are."""
    last_period = name.rfind(".")
    places = _skip(mask, {0}, name, 0)
    for position, character in enumerate(name):
        reached: set[int] = set()
        for place in places:
            if place == len(mask):
                continue
            wild = mask[place]
            if wild == _ANY or (wild == _DOS_STAR and not 0 <= last_period <= position):
                reached.add(place)
            if wild == _DOS_STAR and position == last_period:
                reached.add(place + 1)
            if wild in (_ONE, character) or _is_dos(wild, character):
                reached.add(place + 1)
        places = _skip(mask, reached, name, position + 1)
        if not places:
            return False
    return len(mask) in places


def _is_dos(wild: str, character: str) -> bool:
    """Whether a character is one that `>` or `"` stands for."""
    return wild == (_DOS_DOT if character == "." else _DOS_ONE)


def _skip(mask: str, places: set[int], name: str, position: int) -> set[int]:
    """Add where wildcards that match nothing lead."""
    todo, seen = list(places), set(places)
    at_end = position == len(name)
    at_period = not at_end and name[position] == "."
    while todo:
        place = todo.pop()
        if place == len(mask):
            continue
        wild = mask[place]
        empty = (
            wild in (_ANY, _DOS_STAR)
            or (wild == _DOS_ONE and (at_end or at_period))
            or (wild == _DOS_DOT and at_end)
        )
        if empty and place + 1 not in seen:
            seen.add(place + 1)
            todo.append(place + 1)
    return seen
