"""Workers of pytest-xdist, so that two tests never share a host: each in namespaces of its own, as the whole is.

What they share is what no namespace parts: process numbers, control groups, eBPF's ids, tracefs, the machine's limits
and disk. So a test names what it makes there by its own process (`os.getpid()`, `tmp_path`), and looks for its own.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WRAPPER = (
    os.path.join(ROOT, "scripts", "in-namespaces"),
    *(sys.executable, "-I", "-S", os.path.join(ROOT, "scripts", "no-survivors")),
)
"""Namespaces; and what a worker that is killed has started goes with it."""

LONG = ("tests/real", "tests/kernel", "tests/faults", "tests/property")
"""Where single tests take seconds."""


def put_into_namespaces(specs: Iterable[Any]) -> None:
    """execnet starts a worker by this command line instead of its own Python alone."""
    for spec in specs:
        spec.python = shlex.join([*WRAPPER, sys.executable])


def long_ones_first(items: list[pytest.Item]) -> None:
    """The workers take modules in this order, and end together when the last ones are short."""
    ranks = {folder: rank for rank, folder in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get("/".join(item.nodeid.split("/", 2)[:2]), len(LONG)))
