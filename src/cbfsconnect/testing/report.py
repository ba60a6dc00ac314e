"""What came of the checks, for people."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LEGEND = """\
The lines after "did" are Python, run by another process in a directory of the drive;
write(path, data) and read(path) open, write or read, and close. The events are those
that fired meanwhile: parameters → what the handler left."""


_INDENT: dict[str, Any] = {
    "initial_indent": "      ",
    "subsequent_indent": "      ",
    "break_long_words": False,
}


class Outcome(enum.Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "FAILED"
    NOT_SUPPORTED = "not supported"


@dataclass(frozen=True)
class Result:
    """One check's outcome; `message` explains all but success."""

    name: str
    title: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line, and the explanation of a failure."""
        line = f"{self.outcome.value:<13}  {self.name}: {self.title}"
        if self.outcome is Outcome.NOT_SUPPORTED:
            line += f" ({self.message})"
        elif self.message:
            line += "\n" + textwrap.indent(self.message, "    ")
        return line


@dataclass
class Report:
    """The results of all checks, in order."""

    drive: str
    results: list[Result] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def passed(self) -> list[Result]:
        """The checks that passed."""
        return self._with(Outcome.PASSED)

    @property
    def failed(self) -> list[Result]:
        """The checks that failed."""
        return self._with(Outcome.FAILED)

    @property
    def not_supported(self) -> list[Result]:
        """The checks of what the drive does not claim to have."""
        return self._with(Outcome.NOT_SUPPORTED)

    def __getitem__(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def raise_failures(self) -> None:
        """Raise `AssertionError` with the explanations, if anything failed."""
        if self.failed:
            raise AssertionError(self.text(everything=False))

    def text(self, *, everything: bool = True) -> str:
        """The report; with `everything` False only failures and the sum."""
        shown = self.passed + self.failed if everything else self.failed
        lines = [str(result) for result in shown]
        lines += self.end(legend=bool(self.failed), everything=everything)
        return "\n".join(lines)

    def end(self, *, legend: bool, everything: bool) -> list[str]:
        """What comes after the single results: what is not supported and why, and the sum."""
        lines = ["", LEGEND] if legend else []
        reasons = dict[str, list[str]]()
        for result in self.not_supported if everything else []:
            reasons.setdefault(result.message, []).append(result.name)
        if reasons:
            lines += ["", "not supported by this drive, and so not checked:"]
        for reason, names in reasons.items():
            lines.append(f"  {reason}:")
            lines.append(textwrap.fill(", ".join(names), 88, **_INDENT))
        return [*lines, "", self.summary()]

    def summary(self) -> str:
        """The sum, in one line."""
        seconds = sum(result.seconds for result in self.results)
        return (
            f"{self.drive}: {len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.not_supported)} not supported, in {seconds:.1f} s"
        )

    def __str__(self) -> str:
        return self.text()

    def _with(self, outcome: Outcome) -> list[Result]:
        return [result for result in self.results if result.outcome is outcome]
