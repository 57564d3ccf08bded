"""A host for the tests of `sealane trace`: four networks, five boxes, and the command."""

import json
from typing import Any

from harness.host import Host, Workload


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

    def trace(self, *words: str) -> tuple[int, list[dict[str, Any]], list[str]]:
        """Exit code, journeys, notes."""
        done = self.host.sealane("trace", *self.words(*words), "--json", check=False)
        assert done.stdout, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines[-1]["kind"] == "end"
        return done.returncode, lines[:-1], lines[-1]["notes"]
