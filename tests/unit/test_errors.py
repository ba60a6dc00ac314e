"""Translation between Win32 codes and errno, and the exception."""

import errno
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cbfsconnect
from cbfsconnect import errors
from cbfsconnect.errors import (
    APPLICATION_ERROR,
    MAX_ERRNO,
    CBFSConnectError,
    errno_from_win32,
    win32_from_errno,
)

CODE_NAMES = sorted(name for name in vars(errors) if name.startswith("ERROR_"))

# Numbers from winerror.h of the codes whose role the API's documentation shows.
DOCUMENTED = {
    "ERROR_INVALID_FUNCTION": 1,
    "ERROR_FILE_NOT_FOUND": 2,
    "ERROR_PATH_NOT_FOUND": 3,
    "ERROR_ACCESS_DENIED": 5,
    "ERROR_INVALID_HANDLE": 6,
    "ERROR_NOT_ENOUGH_MEMORY": 8,
    "ERROR_INVALID_DRIVE": 15,
    "ERROR_WRITE_FAULT": 29,
    "ERROR_READ_FAULT": 30,
    "ERROR_SHARING_VIOLATION": 32,
    "ERROR_HANDLE_EOF": 38,
    "ERROR_FILE_EXISTS": 80,
    "ERROR_INVALID_PARAMETER": 87,
    "ERROR_INSUFFICIENT_BUFFER": 122,
    "ERROR_INVALID_NAME": 123,
    "ERROR_DIR_NOT_EMPTY": 145,
    "ERROR_MORE_DATA": 234,
    "ERROR_DIRECTORY": 267,
    "ERROR_OPERATION_ABORTED": 995,
    "ERROR_IO_PENDING": 997,
    "ERROR_FILE_INVALID": 1006,
    "ERROR_IMPLEMENTATION_LIMIT": 1292,
    "ERROR_PRIVILEGE_NOT_HELD": 1314,
    "ERROR_INTERNAL_ERROR": 1359,
    "ERROR_NOT_A_REPARSE_POINT": 4390,
    "ERROR_REPARSE_ATTRIBUTE_CONFLICT": 4391,
    "ERROR_INVALID_REPARSE_DATA": 4392,
    "ERROR_REPARSE_TAG_INVALID": 4393,
    "ERROR_REPARSE_TAG_MISMATCH": 4394,
}

# What a Linux program must see for what a handler reports.
MEANINGS = {
    "ERROR_SUCCESS": 0,
    "ERROR_FILE_NOT_FOUND": errno.ENOENT,
    "ERROR_PATH_NOT_FOUND": errno.ENOENT,
    "ERROR_NOT_FOUND": errno.ENOENT,
    "ERROR_ACCESS_DENIED": errno.EACCES,
    "ERROR_PRIVILEGE_NOT_HELD": errno.EPERM,
    "ERROR_WRITE_PROTECT": errno.EROFS,
    "ERROR_FILE_EXISTS": errno.EEXIST,
    "ERROR_ALREADY_EXISTS": errno.EEXIST,
    "ERROR_DIRECTORY": errno.ENOTDIR,
    "ERROR_DIRECTORY_NOT_SUPPORTED": errno.EISDIR,
    "ERROR_DIR_NOT_EMPTY": errno.ENOTEMPTY,
    "ERROR_FILENAME_EXCED_RANGE": errno.ENAMETOOLONG,
    "ERROR_CANT_RESOLVE_FILENAME": errno.ELOOP,
    "ERROR_NOT_SAME_DEVICE": errno.EXDEV,
    "ERROR_TOO_MANY_LINKS": errno.EMLINK,
    "ERROR_TOO_MANY_OPEN_FILES": errno.EMFILE,
    "ERROR_SHARING_VIOLATION": errno.EBUSY,
    "ERROR_BUSY": errno.EBUSY,
    "ERROR_LOCK_VIOLATION": errno.EAGAIN,
    "ERROR_DISK_FULL": errno.ENOSPC,
    "ERROR_HANDLE_DISK_FULL": errno.ENOSPC,
    "ERROR_DISK_QUOTA_EXCEEDED": errno.EDQUOT,
    "ERROR_FILE_TOO_LARGE": errno.EFBIG,
    "ERROR_NOT_ENOUGH_MEMORY": errno.ENOMEM,
    "ERROR_INVALID_HANDLE": errno.EBADF,
    "ERROR_INVALID_PARAMETER": errno.EINVAL,
    "ERROR_INVALID_NAME": errno.EINVAL,
    "ERROR_NEGATIVE_SEEK": errno.EINVAL,
    "ERROR_NOT_A_REPARSE_POINT": errno.EINVAL,
    "ERROR_INSUFFICIENT_BUFFER": errno.ERANGE,
    "ERROR_MORE_DATA": errno.ERANGE,
    "ERROR_NOT_SUPPORTED": errno.EOPNOTSUPP,
    "ERROR_INVALID_FUNCTION": errno.EOPNOTSUPP,
    "ERROR_EAS_NOT_SUPPORTED": errno.EOPNOTSUPP,
    "ERROR_OFFLOAD_READ_FLT_NOT_SUPPORTED": errno.EOPNOTSUPP,
    "ERROR_CALL_NOT_IMPLEMENTED": errno.ENOSYS,
    "ERROR_NOT_READY": errno.ENOMEDIUM,
    "ERROR_NO_MEDIA_IN_DRIVE": errno.ENOMEDIUM,
    "ERROR_FILE_INVALID": errno.ESTALE,
    "ERROR_READ_FAULT": errno.EIO,
    "ERROR_WRITE_FAULT": errno.EIO,
    "ERROR_INTERNAL_ERROR": errno.EIO,
    "ERROR_TIMEOUT": errno.ETIMEDOUT,
    "ERROR_CANCELLED": errno.ECANCELED,
    "ERROR_OPERATION_ABORTED": errno.ECANCELED,
}


@pytest.mark.proves("every error code")
@pytest.mark.parametrize(("name", "number"), DOCUMENTED.items())
def test_documented_number(name: str, number: int) -> None:
    assert getattr(errors, name) == number


@pytest.mark.parametrize(("name", "number"), MEANINGS.items())
def test_meaning_for_linux(name: str, number: int) -> None:
    assert errno_from_win32(getattr(errors, name)) == number


def test_each_code_has_one_name() -> None:
    values = [getattr(errors, name) for name in CODE_NAMES]
    assert len(set(values)) == len(values)


@pytest.mark.proves("every error code")
def test_each_code_stands_in_one_row() -> None:
    placed = [code for codes in errors._CODES_OF_ERRNO.values() for code in codes]
    assert sorted(placed) == sorted(getattr(errors, name) for name in CODE_NAMES)


def test_star_import_of_the_package_gives_them() -> None:
    assert set(CODE_NAMES) <= set(errors.__all__)
    for name in errors.__all__:
        assert getattr(cbfsconnect, name) is getattr(errors, name)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_errno_of_this_system_comes_back(number: int) -> None:
    assert errno_from_win32(win32_from_errno(number)) == number


@given(st.integers(0, MAX_ERRNO))
def test_every_number_that_a_reply_may_carry_comes_back(number: int) -> None:
    assert errno_from_win32(win32_from_errno(number)) == number


def test_an_errno_without_counterpart_is_an_application_code() -> None:
    assert win32_from_errno(errno.ENFILE) == APPLICATION_ERROR | errno.ENFILE


@given(st.integers())
def test_any_code_gives_what_a_reply_may_carry(code: int) -> None:
    number = errno_from_win32(code)
    assert 0 <= number <= MAX_ERRNO
    assert (number == 0) == (code == 0)


@given(st.integers())
def test_any_number_gives_a_code(number: int) -> None:
    assert (win32_from_errno(number) == 0) == (number == 0)


@pytest.mark.parametrize(
    "code",
    [
        -1,
        0xFFFFFFFF,
        999_999,
        APPLICATION_ERROR,
        APPLICATION_ERROR | (MAX_ERRNO + 1),
        -APPLICATION_ERROR,
    ],
)
def test_an_unknown_code_is_an_input_output_error(code: int) -> None:
    assert errno_from_win32(code) == errno.EIO


@pytest.mark.parametrize("number", [-1, -errno.ENOENT, MAX_ERRNO + 1, 2**40])
def test_what_is_no_errno_is_an_input_output_error(number: int) -> None:
    assert win32_from_errno(number) == errors.ERROR_IO_DEVICE


def test_exception_has_code_and_message() -> None:
    error = CBFSConnectError(87, "no such thing")
    assert (error.code, error.message) == (87, "no such thing")
    assert isinstance(error, Exception)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (87, "it failed (error 87 ERROR_INVALID_PARAMETER)"),
        (-1, "it failed (error -1)"),
        (APPLICATION_ERROR | errno.ENFILE, f"it failed (error {0x20000000 | 23} ENFILE)"),
        (APPLICATION_ERROR | 500, f"it failed (error {0x20000000 | 500} errno 500)"),
    ],
)
def test_exception_reads_well(code: int, text: str) -> None:
    assert str(CBFSConnectError(code, "it failed")) == text


def test_exception_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(CBFSConnectError(5, "not yours")))
    assert (error.code, error.message) == (5, "not yours")
