"""gRPC costs 71 ms and 29 MiB: only a host that has joined a cluster loads it."""

import subprocess
import sys

import pytest

from docs.markdown import ROOT

SCRIPT = """
import sys
import {module}
print(*sorted(name for name in sys.modules if name == "grpc" or name.startswith(("google.protobuf", "sealane.etcd"))))
"""


def loaded_by(module: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(module=module)],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", ["sealane.cli.main", "sealane.daemon.main", "sealane.engine.engine"])
def test_a_host_alone_loads_no_grpc(module: str) -> None:
    assert loaded_by(module) == []


def test_the_client_would_be_seen() -> None:
    loaded = loaded_by("sealane.etcd.client")
    assert {"grpc", "google.protobuf", "sealane.etcd.client"} <= set(loaded)
