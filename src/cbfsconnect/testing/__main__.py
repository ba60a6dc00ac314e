"""`python -m cbfsconnect.testing MODULE:FACTORY`: check a drive, print a report."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cbfsconnect.testing.registry import CHECKS
from cbfsconnect.testing.report import Outcome, Result
from cbfsconnect.testing.running import check_drive, choose


def main(arguments: list[str] | None = None) -> int:
    """Check the drive; 0 when nothing failed, 1 when something did, 2 when it cannot be checked."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        for check in CHECKS.values():
            print(f"{check.name:<45} {check.title}")
        return 0
    if given.drive is None:
        parser.error("name the drive: MODULE:FACTORY, or FILE.py:FACTORY")

    def show(result: Result) -> None:
        if result.outcome is Outcome.FAILED or (
            result.outcome is Outcome.PASSED and not given.quiet
        ):
            print(result, flush=True)

    try:
        factory = load(given.drive)
        options = dict(_pair(text, _value) for text in given.set)
        config = dict(_pair(text, str) for text in given.config)
        choose(given.select, given.skip)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"cbfsconnect.testing: {error}", file=sys.stderr)
        return 2
    report = check_drive(
        factory,
        select=given.select,
        skip=given.skip,
        options=options,
        config=config,
        durable=given.durable,
        timeout=given.timeout,
        progress=show,
    )
    end = "\n".join(report.end(legend=not report.ok, everything=not given.quiet))
    print(end.lstrip("\n") if given.quiet and report.ok else end)
    return 0 if report.ok else 1


def load(name: str) -> Callable[..., Any]:
    """The factory that `module:name` or `path/to/file.py:name` stands for."""
    place, _, attribute = name.rpartition(":")
    if not place:
        raise ValueError(f"{name!r}: write MODULE:FACTORY, or FILE.py:FACTORY")
    if place.endswith(".py"):
        path = Path(place).resolve()
        sys.path.insert(0, str(path.parent))
        place = path.stem
    else:
        sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(place)
    for part in attribute.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is no function or class that makes a drive")
    made: Callable[..., Any] = found
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cbfsconnect.testing", description=__doc__)
    parser.add_argument(
        "drive",
        nargs="?",
        metavar="MODULE:FACTORY",
        help="what makes the drive when it is called, with a directory to keep things in if it "
        "takes an argument; FILE.py:FACTORY will do, too",
    )
    add = parser.add_argument
    pattern = "name or pattern of checks; may be repeated"
    add("--select", action="append", default=[], metavar="PATTERN", help=f"only these: {pattern}")
    add("--skip", action="append", default=[], metavar="PATTERN", help=f"not these: {pattern}")
    add("--set", action="append", default=[], metavar="PROPERTY=VALUE", help="for the mount")
    add("--config", action="append", default=[], metavar="SETTING=VALUE", help="for the mount")
    add(
        "--durable",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="what fsync confirmed must outlive the process; default: if FACTORY takes a directory",
    )
    add("--timeout", type=float, default=30.0, metavar="S", help="seconds for a step, default 30")
    add("--quiet", action="store_true", help="print failures only")
    add("--list", action="store_true", help="list the checks and end")
    return parser


def _pair(text: str, convert: Callable[[str], Any]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: write NAME=VALUE")
    return name, convert(value)


def _value(text: str) -> bool | int | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text, 0)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
