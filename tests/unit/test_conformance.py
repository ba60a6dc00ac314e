"""docs/reference/conformance.md names every member of the contract, with a test that proves it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cbfsconnect import CBFS, EVENTS, constants
from cbfsconnect.properties import Property
from cbfsconnect.settings import SETTINGS
from support import proving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def conformance() -> ModuleType:
    """tools/conformance.py as a module."""
    path = ROOT / "tools" / "conformance.py"
    spec = importlib.util.spec_from_file_location("conformance", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["conformance"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_missing(conformance: ModuleType) -> None:
    assert list(conformance.Contract().gaps()) == []


def test_the_contract_is_whole(conformance: ModuleType) -> None:
    names = conformance.Contract().names
    counts = {kind: len(set(names[kind])) for kind in ("events", "properties", "methods")}
    assert counts == {"events": 52, "properties": 52, "methods": 43}


def test_every_member_is_on_the_page(conformance: ModuleType) -> None:
    page = "".join(conformance.sections(conformance.Contract()))
    declared = {n for n in dir(CBFS) if isinstance(getattr(CBFS, n), Property | property)}
    for name in {*EVENTS, *declared, *SETTINGS, *constants.__all__}:
        assert f"`{name}`" in page, name
    for names in proving.CONTRACT.values():
        for name in names:
            assert f"`{name}`" in page, name


def test_a_member_without_a_proof_is_noticed(conformance: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import pytest\n@pytest.mark.proves('on_mount', 'no_such_member')\ndef test_it(): ...\n"
    )
    gaps = {gap.name: gap.what for gap in conformance.Contract(tmp_path).gaps()}
    assert "on_mount" not in gaps
    assert gaps["on_unmount"] == "is proven by no test"
    assert gaps["STGT_DISK"] == "is proven by no test"
    assert "no member" in gaps["no_such_member"]


def test_what_is_told_of_nothing_is_noticed(conformance: ModuleType) -> None:
    contract = conformance.Contract()
    contract.names["events"].append("on_nothing")
    contract.differs["on_nobody"] = "None."
    del contract.differs["on_mount"]
    gaps = {(gap.name, gap.what) for gap in contract.gaps()}
    assert ("on_nothing", "is not there, or does not say what it does") in gaps
    assert ("on_nobody", "is in conformance.toml, but no member") in gaps
    assert ("on_mount", "does not say how it differs from Windows") in gaps


def test_the_page_names_tests_that_run(conformance: ModuleType) -> None:
    for tests in conformance.Contract().proofs.values():
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


class Item:
    """Stands for a test that pytest runs."""

    def __init__(self, nodeid: str, *proven: str) -> None:
        self.nodeid = nodeid
        self._marks = [pytest.mark.proves(*proven).mark]

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return self._marks


def pass_(proofs: proving.Proofs, item: Item, *happened: str) -> None:
    """Have a test pass while this happened."""
    before = set(proving.seen)
    proving.seen.clear()
    proving.seen.update(happened)
    try:
        proofs._check(item)  # type: ignore[arg-type]
    finally:
        proving.seen.update(before)


def test_a_test_must_do_what_it_says_it_proves() -> None:
    proofs = proving.Proofs()
    items = [Item("a::one", "on_mount"), Item("a::two[1]", "active"), Item("a::two[2]", "active")]
    proofs.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    with pytest.raises(pytest.fail.Exception, match="proves on_mount"):
        pass_(proofs, items[0], "on_unmount")
    pass_(proofs, items[1])
    pass_(proofs, items[2], "active")
    with pytest.raises(pytest.UsageError, match="on_nothing"):
        proofs.pytest_collection_modifyitems([Item("a", "on_nothing")])  # type: ignore[list-item]


def test_tests_with_parameters_prove_it_together() -> None:
    proofs = proving.Proofs()
    items = [Item("a::two[1]", "active", "tag"), Item("a::two[2]", "active", "tag")]
    proofs.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    pass_(proofs, items[0], "tag")
    with pytest.raises(pytest.fail.Exception, match="proves active"):
        pass_(proofs, items[1], "tag")
