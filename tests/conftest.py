"""Fixtures for every test; the kernel tests' come from tests/harness."""

import pytest

pytest.register_assert_rewrite("harness")

import pytest
from harness.plugin import (  # noqa: E402, F401
    bites,
    family,
    host,
    lan,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    scene,
    shared_host,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite goldens and generated documents")
