"""What holds for all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.client import Client
from support.mounts import Mounting, mounting
from support.proving import Proofs

# A busy machine must not fail a property: pytest-timeout bounds the whole test instead.
settings.register_profile("default-without-deadline", deadline=None)
settings.load_profile("default-without-deadline")

# Shells start background jobs with SIGINT ignored, which the servers of the tests would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption(
        "--async-handlers",
        action="store_true",
        help="turn all handlers into `async def` (tests whose handlers block will fail)",
    )


@pytest.fixture
def mount(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounting]:
    """A function that mounts handlers, as `cbfsconnect.mount` does, for the time of the test."""
    with mounting(tmp_path, request.config.getoption("--async-handlers")) as function:
        yield function


@pytest.fixture
def client() -> Iterator[Client]:
    """A process that uses mounts; see `support.client`."""
    with Client() as process:
        yield process


def pytest_configure(config: pytest.Config) -> None:
    """Check that tests prove what they say."""
    config.pluginmanager.register(Proofs(), "proofs")
