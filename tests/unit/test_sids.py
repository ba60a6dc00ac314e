"""SIDs, and Windows control codes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect import ctl_code, sid_of_uid, sid_to_bytes, sid_to_text, uid_of_sid
from cbfsconnect.sids import MOST_BYTES, sid_length

KNOWN = {
    "S-1-5-18": "010100000000000512000000",
    "S-1-5-32-544": "01020000000000052000000020020000",
    "S-1-22-1-1000": "010200000000001601000000e8030000",
}


@pytest.mark.parametrize("text", KNOWN)
def test_known_sids(text: str) -> None:
    assert sid_to_bytes(text).hex() == KNOWN[text]
    assert sid_to_text(bytes.fromhex(KNOWN[text])) == text


@given(
    st.integers(0, 999_999_999_999_999),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=15),
)
def test_there_and_back(authority: int, numbers: list[int]) -> None:
    text = "-".join(["S-1", str(min(authority, 2**48 - 1)), *map(str, numbers)])
    binary = sid_to_bytes(text)
    assert sid_to_text(binary) == text
    assert sid_length(binary + b"more") == len(binary) <= MOST_BYTES


@pytest.mark.parametrize(
    "text",
    ["", "S-1", "S-1-5", "S-2-5-1", "S-1-5-", "S-1-5-4294967296", "S-1-5-x", "x S-1-5-1",
     "S-1-999999999999999-1", "S-1-5" + "-1" * 16, "S-1-5-\u0661"],
)  # fmt: skip
def test_no_sid(text: str) -> None:
    with pytest.raises(ValueError, match="SID"):
        sid_to_bytes(text)


@pytest.mark.parametrize(
    "data", ["", "01", "0201000000000005" + "00" * 4, "0100000000000005",
             "0102000000000005" + "00" * 4,
             "0110000000000005" + "00" * 64, "0101000000000005" + "00" * 5]
)  # fmt: skip
def test_no_binary_sid(data: str) -> None:
    with pytest.raises(ValueError, match="SID"):
        sid_to_text(bytes.fromhex(data))


def test_linux_users() -> None:
    assert sid_of_uid(1000) == "S-1-22-1-1000"
    assert uid_of_sid("S-1-22-1-1000") == uid_of_sid(sid_to_bytes("S-1-22-1-1000")) == 1000
    for other in ("S-1-22-2-1000", "S-1-5-18", "S-1-22-1-1-1", "S-1-22-1-"):
        assert uid_of_sid(other) is None
    for number in (-1, 2**32 - 1):
        with pytest.raises(ValueError, match="user id"):
            sid_of_uid(number)


def test_control_codes() -> None:
    assert ctl_code(9, 42) == 0x900A8  # FSCTL_GET_REPARSE_POINT
    assert ctl_code(9, 41, 0, 0) == 0x900A4
    assert ctl_code(7, 0x14, 3, 3) == 0x7C053
    for fields in ((1 << 16, 0), (9, 1 << 12), (9, 0, 4), (9, 0, 0, 4), (-1, 0)):
        with pytest.raises(ValueError, match="control code"):
            ctl_code(*fields)
