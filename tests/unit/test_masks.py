"""`file_matches_mask`: what Windows programs expect a mask to match."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect import CBFS


def matches(mask: str, name: str, case_sensitive: bool) -> bool:
    return CBFS.file_matches_mask(mask, name, case_sensitive)


@pytest.mark.proves("file_matches_mask")
@pytest.mark.parametrize(
    ("mask", "name", "expected"),
    [
        ("*", "anything", True),
        ("", "anything", True),
        ("*.*", "no_extension", True),
        ("*.*", "a.txt", True),
        ("*.txt", "a.txt", True),
        ("*.txt", "a.b.txt", True),
        ("*.txt", "a.txt.bak", False),
        ("*.", "no_extension", True),
        ("*.", "a.txt", False),
        ("a?", "a", True),
        ("a?", "ab", True),
        ("a?", "abc", False),
        ("???.txt", "ab.txt", True),
        ("f*.p?", "foo.py", True),
        ("f*.p?", "foo.p", True),
        ("foo.*", "foo", True),
        ("foo.*", "foo.x", True),
        ("foo.*", "food", False),
        ("*a*b*", "xxaxxb", True),
        ("*.c", "x.c.d", False),
        ("[ab]", "a", False),
    ],
)
def test_masks_match_as_windows_does(mask: str, name: str, expected: bool) -> None:
    assert matches(mask, name, True) is expected


def test_letter_case_counts_only_when_asked_to() -> None:
    assert matches("A*", "abc", False)
    assert not matches("A*", "abc", True)


_NAMES = st.text("ab.", min_size=1, max_size=8)


@given(_NAMES)
def test_a_name_matches_itself(name: str) -> None:
    assert matches(name, name, True)


@given(_NAMES, _NAMES)
def test_a_star_matches_any_end(start: str, rest: str) -> None:
    if not start.endswith("."):
        assert matches(f"{start}*", start + rest, True)
