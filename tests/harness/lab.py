"""Labs for tests: real ones, by the command line.

@pytest.fixture(scope="module")
def cluster(lab):
    return lab(hosts=3, etcd=1)

cluster.sealane("h1", "network", "ls")
"""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from harness.api import Api
from harness.host import ROOT
from harness.patience import PATIENCE_S

SEALANE = (sys.executable, "-m", "sealane")
UP_TIMEOUT_S = 4 * PATIENCE_S
ROOT_DIR = "/run/sealane-lab"


class Lab:
    """One lab. A context manager: down at the end, whatever happened."""

    def __init__(self, file: str, name: str = "") -> None:
        self.file = file
        self.name = name or f"test-{uuid.uuid4().hex[:8]}"
        self.dir = f"{ROOT_DIR}/{self.name}"

    def up(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cli("up", "-", *options, text=self.file, check=check)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.cli("down")

    def cli(
        self, verb: str, *words: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`sealane lab VERB --name …`."""
        return self.lab(verb, "--name", self.name, *words, text=text, check=check)

    def lab(
        self, verb: str, *words: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`sealane lab VERB …`, of whichever lab."""
        done = subprocess.run(
            [*SEALANE, "lab", verb, *words],
            input=text,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
            timeout=UP_TIMEOUT_S,
        )
        if check and done.returncode != 0:
            logs = "".join(f"\n--- {name}\n{text[-2000:]}" for name, text in self.logs().items())
            raise AssertionError(
                f"lab {verb} {' '.join(words)}: {done.returncode}: {done.stderr}{done.stdout}{logs}"
            )
        return done

    def logs(self) -> dict[str, str]:
        found = {}
        for folder, _, files in os.walk(self.dir):
            for file in files:
                if file.endswith(".log"):
                    with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as log:
                        found[os.path.relpath(os.path.join(folder, file), self.dir)] = log.read()
        return found

    def exec(
        self, node: str, *command: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, in an etcd member or in `underlay`."""
        return self.cli("exec", node, "--", *command, text=text, check=check)

    def sealane(
        self, host: str, *words: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.exec(host, *SEALANE, *words, text=text, check=check)

    def api(self, host: str) -> Api:
        """The host's daemon, from outside."""
        return Api(f"{self.dir}/nodes/{host}/run/sealane.sock")

    def status(self) -> dict[str, dict[str, Any]]:
        """Each node by its name."""
        view = json.loads(self.cli("status", "--json").stdout)
        return {node["name"]: node for node in view["nodes"]}

    def states(self) -> dict[str, str]:
        return {name: node["state"] for name, node in self.status().items()}

    def pings(self, source: str, target: str, *options: str, wait_s: int = 1) -> bool:
        """Whether one of two packets is answered."""
        words = ("ping", "-n", "-c", "2", "-i", "0.1", "-W", str(wait_s), *options, target)
        return self.exec(source, *words, check=False).returncode == 0

    def processes(self) -> list[int]:
        """Of the two that hold the lab: the warden first."""
        words = b"\0".join((b"sealane.lab.warden", ROOT_DIR.encode(), self.name.encode())) + b"\0"
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        if words in file.read():
                            found.append(int(entry))
                except OSError:
                    continue
        return sorted(found, key=lambda pid: _parent(pid) in found)

    def inhabitants(self) -> list[int]:
        """Every process of the lab's pid namespace."""
        holder = self.processes()[-1]
        namespace = os.readlink(f"/proc/{holder}/ns/pid")
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                        found.append(int(entry))
                except OSError:
                    continue
        return found

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent, and sure: what does not go down is killed."""
        self.cli("down", check=False)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def environment() -> dict[str, str]:
    path = f"{os.path.dirname(sys.executable)}:/usr/sbin:/sbin:{os.environ.get('PATH', '')}"
    environ = {**os.environ, "PATH": path, "PYTHONPATH": os.path.join(ROOT, "src"), "NO_COLOR": "1"}
    for name in ("SEALANE_SOCKET", "SEALANE_LAB"):
        environ.pop(name, None)
    return environ


def lab_file(hosts: Any = 3, etcd: int = 1, underlay: str = "segment", **fields: Any) -> str:
    """JSON, which is YAML."""
    return json.dumps(
        {
            "hosts": hosts,
            "etcd": {"members": etcd},
            "underlay": {"kind": underlay} | fields.pop("uplinks", {}),
        }
        | fields
    )


@contextmanager
def labs_of_a_module() -> Iterator[Any]:
    """A function that brings labs up: `lab(hosts=3, etcd=1, underlay="segment")`. All go down at the end."""
    made: list[Lab] = []

    def lab(hosts: Any = 3, etcd: int = 1, underlay: str = "segment", **fields: Any) -> Lab:
        fresh = Lab(lab_file(hosts, etcd, underlay, **fields))
        made.append(fresh)
        return fresh.__enter__()

    try:
        yield lab
    finally:
        for one in made:
            one.close()
