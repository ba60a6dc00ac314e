"""docs/reference is what the code declares."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import cbfsconnect
from cbfsconnect import EVENTS, Direction, Parameter
from cbfsconnect.settings import SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """tools/make-reference.py as a module."""
    spec = importlib.util.spec_from_file_location("maker", ROOT / "tools" / "make-reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(maker: ModuleType) -> None:
    assert maker.outdated(maker.pages()) == [], "run tools/make-reference.py"


def test_a_page_that_differs_or_is_missing_is_noticed(maker: ModuleType) -> None:
    made = maker.pages()
    made["events.md"] += "\n"
    made["another.md"] = ""
    assert maker.outdated(made) == ["another.md", "events.md"]


def test_everything_that_is_declared_is_on_a_page(maker: ModuleType) -> None:
    made = maker.pages()
    for event in EVENTS.values():
        assert f"## {event.name}\n" in made["events.md"]
        for parameter in event.parameters:
            assert f"| `{parameter.name}` |" in made["events.md"]
    for name in SETTINGS:
        assert f"| `{name}` |" in made["settings.md"]
    for name in cbfsconnect.constants.__all__:
        assert f"| `{name}` |" in made["constants.md"], name
    for name in ("storage_type", "use_hard_links", "active", "mounting_point_count"):
        assert f"| `{name}` |" in made["properties.md"]
    for name in ("mount", "enumerate_hard_links", "mount_media", "reset_timeout", "unmount"):
        assert f"### {name}\n" in made["methods.md"]
    assert "| `ERROR_ACCESS_DENIED` | 5 | `EACCES` | yes |" in made["errors.md"]


def test_a_parameter_without_a_meaning_is_refused(maker: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"does not say what on_read_file\.nothing means"):
        maker.Meanings().of("on_read_file", Parameter("nothing", "int", Direction.IN))
