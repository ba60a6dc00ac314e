"""Running checks: a fresh drive, a fresh mount and a fresh process for each."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from cbfsconnect.testing import balance
from cbfsconnect.testing import checks as _checks  # noqa: F401 - enters the checks
from cbfsconnect.testing.client import Client
from cbfsconnect.testing.registry import CHECKS, Check
from cbfsconnect.testing.report import Outcome, Report, Result
from cbfsconnect.testing.serving import Factory, Source, collected_log, workplace
from cbfsconnect.testing.stage import Stage
from cbfsconnect.testing.trial import CheckFailed, NotSupported, table

_MOST_SURPRISES = 3


def check_drive(
    factory: Factory,
    *,
    select: str | Iterable[str] = (),
    skip: str | Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, object] | None = None,
    durable: bool | None = None,
    timeout: float = 30.0,
    progress: Callable[[Result], object] | None = None,
) -> Report:
    """Check a drive through real mounts; each check gets a new one from `factory`.

    `factory()` returns what `cbfsconnect.mount` takes, or an object of class `CBFS` with handlers,
    or a context manager that gives one of these. A factory with a parameter gets a directory to
    keep things in, and makes a drive of what is there; such a drive is taken for durable: what
    `fsync` confirmed must outlive its process (`durable=False`: it need not).

    `select` and `skip` are names of checks, or patterns such as `"locks.*"`. `options` are
    properties and `config` settings for the mount, as in `cbfsconnect.mount`. `timeout` is how many
    seconds a step may take. `progress` is called with each result. Nothing is raised for what the
    drive does wrong: see `Report.ok` and `Report.raise_failures`. Raises `ValueError` for a
    pattern that matches no check.
    """
    chosen = choose(select, skip)
    source = Source(factory, options or {}, config or {}, durable, timeout)
    report = Report(str(getattr(factory, "__qualname__", factory)))
    with Client() as client:
        for name in chosen:
            result = run_check(CHECKS[name], source, client)
            report.results.append(result)
            if progress is not None:
                progress(result)
    return report


def choose(select: str | Iterable[str] = (), skip: str | Iterable[str] = ()) -> list[str]:
    """Names of checks by patterns; all of them if none is given."""
    wanted = [select] if isinstance(select, str) else list(select)
    unwanted = [skip] if isinstance(skip, str) else list(skip)
    for pattern in wanted + unwanted:
        if not fnmatch.filter(CHECKS, pattern):
            raise ValueError(f"no check is called {pattern!r}; there are {', '.join(CHECKS)}")
    return [
        name
        for name in CHECKS
        if (not wanted or any(fnmatch.fnmatch(name, p) for p in wanted))
        and not any(fnmatch.fnmatch(name, p) for p in unwanted)
    ]


def run_check(check: Check, source: Source, client: Client | None = None) -> Result:
    """Run one check; with the process of others, if it is given."""
    began = time.monotonic()
    with ExitStack() as stack:
        client = client or stack.enter_context(Client())
        try:
            _run(check, source, client)
            outcome, message = Outcome.PASSED, ""
        except NotSupported as reason:
            outcome, message = Outcome.NOT_SUPPORTED, str(reason)
        except CheckFailed as failure:
            outcome, message = Outcome.FAILED, str(failure)
    seconds = time.monotonic() - began
    return Result(check.name, check.title, outcome, message, seconds)


def _run(check: Check, source: Source, client: Client) -> None:
    """Run the body of a check; look at the events of all its mounts if it passes."""
    with collected_log() as log, workplace() as (point, storage):
        stage = Stage(check, source, client, point, storage)
        if not check.mounts:
            check.body(stage)
            return
        reason: NotSupported | None = None
        with stage.made() as made:
            try:
                with stage.mounted(made) as trial:
                    check.body(trial)
            except NotSupported as why:
                reason = why
        _look_back(stage.fired, log, fire_all=stage.fire_all)
        if reason is not None:
            raise reason


def _look_back(fired: list[Any], log: list[str], *, fire_all: bool) -> None:
    """Fail for what the events of the whole mount show, when the check itself has passed."""
    found = balance.surprises(fired, log)
    if found:
        more = len(found) - _MOST_SURPRISES
        lines = found[:_MOST_SURPRISES] + ([f"… and {more} more"] if more > 0 else [])
        raise CheckFailed(
            table(
                [
                    ("did", "what this check does; all its steps came out right"),
                    ("came", "\n".join(lines)),
                    ("expected", "handlers that do not fail unexpectedly"),
                ]
            )
        )
    problems = balance.unbalanced(fired, fire_all=fire_all)
    if problems:
        raise CheckFailed(
            table(
                [
                    ("did", "what this check does, and unmounted the drive"),
                    (
                        "expected",
                        "each open is followed by cleanup and one close, each listing by one end",
                    ),
                    ("came", "\n".join(problems)),
                    ("usually", "This balance is the library's duty: please report it."),
                ]
            )
        )
