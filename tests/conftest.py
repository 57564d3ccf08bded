"""Fixtures for every test; the kernel tests' come from tests/harness."""

import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("harness")

from harness.plugin import (  # noqa: E402, F401
    bites,
    family,
    host,
    lab,
    lan,
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_sessionfinish,
    pytest_sessionstart,
    pytest_xdist_setupnodes,
    scene,
    shared_host,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite goldens and generated documents")


# The machine is shared: how long an example takes says nothing. `make test-long` runs more of them.
settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
