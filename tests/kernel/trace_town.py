"""A host for the tests of `sealane trace`: four networks, five boxes, and the command."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from harness.host import Host, Workload
from harness.netns import eventually

JsonFile = tuple[int, list[dict[str, Any]], list[str]]
"""Exit code, journeys, notes."""

TABLE = "sealane-trace-"
LIVE_S = "8"
"""After which a trace that waits gives up."""


class Live:
    """A trace that waits."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def result(self, timeout_s: float = 100) -> JsonFile:
        out, err = self.process.communicate(timeout=timeout_s)
        return told(self.process.returncode, out, err)


def told(code: int, out: str, err: str) -> JsonFile:
    assert out, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["kind"] == "end"
    return code, lines[:-1], lines[-1]["notes"]


class Town:
    """front (dual-stack; web publishes 8080), back, vault (internal), side (routed)."""

    def __init__(self, host: Host) -> None:
        self.host = host
        api = host.api
        api.network("front", "10.71.0.0/24", "fd71::/64")
        api.network("back", "10.72.0.0/24")
        api.network("side", "10.74.0.0/24", driver="routed")
        self.names: dict[str, str] = {}
        self.boxes: dict[str, Workload] = {}
        publish = [{"proto": "tcp", "host_first": 8080, "port": 80}]
        for name, network, published in [
            ("web", "front", publish), ("api", "front", []), ("db", "back", []),
            ("far", "side", []), ("near", "side", []),
        ]:  # fmt: skip
            box = Workload(host, name)
            self.names[name] = box.attach(network, publish=published)["sandbox"]
            self.boxes[name] = box

    def words(self, *words: str) -> list[str]:
        """Names of boxes, with a port or without, stand for their sandboxes."""
        parts = [word.partition(":") for word in words]
        return [self.names.get(name, name) + colon + port for name, colon, port in parts]

    def trace(self, *words: str) -> JsonFile:
        done = self.host.sealane("trace", *self.words(*words), "--json", check=False)
        return told(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def live(
        self, *words: str, mode: str = "--live", timeout: str = LIVE_S, json: bool = True
    ) -> Iterator[Live]:
        """A trace that has begun to look, and waits for what comes."""
        before = len(self.tables())
        options = mode, "--timeout", timeout, *(["--json"] if json else [])
        process = self.host.sealane_process("trace", *self.words(*words), *options)
        try:
            eventually(
                lambda: len(self.tables()) > before or process.poll() is not None, what="the trace looks"
            )
            yield Live(process)
        finally:
            process.kill()
            process.communicate()

    def tables(self) -> list[str]:
        """Of running traces, in the host's namespace; the bridge's are made last."""
        lines = self.host.ns.sh("nft", "list", "tables", "bridge").splitlines()
        return [name for line in lines if (name := line.split()[-1]).startswith(TABLE)]
