"""The committed messages are those of our etcd.proto."""

import subprocess
from pathlib import Path

import pytest

from docs.markdown import ROOT, SOURCES

GENERATED = ("etcd_pb2.py", "etcd_pb2.pyi")


@pytest.mark.parametrize("name", GENERATED)
def test_generating_again_gives_the_committed_file(name: str, tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="no grpcio-tools")
    done = subprocess.run([ROOT / "scripts" / "etcd-proto", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "sealane" / "etcd" / name).read_text(encoding="utf-8")
    assert made == (SOURCES / "etcd" / name).read_text(encoding="utf-8"), "run scripts/etcd-proto"
