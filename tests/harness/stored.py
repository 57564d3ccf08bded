"""What a state directory says, read with sqlite3 and json: the auditor's half of the truth."""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from typing import Any

Record = dict[str, Any]


class Stored:
    """All records, by id."""

    def __init__(self, state_dir: str) -> None:
        self.networks: dict[str, Record] = {}
        self.sandboxes: dict[str, Record] = {}
        self.endpoints: dict[str, Record] = {}
        self.containers: dict[str, Record] = {}
        self.leases: list[tuple[str, str, str]] = []
        """(network, address, endpoint)."""
        self.broken: list[str] = []
        # The daemon holds its database exclusively, so a copy is read; the write-ahead log belongs to it.
        with tempfile.TemporaryDirectory(prefix="sealane-audit-") as copy:
            for name in ("state.db", "state.db-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(os.path.join(state_dir, name), os.path.join(copy, name))
            if os.path.exists(os.path.join(copy, "state.db")):
                self._read(os.path.join(copy, "state.db"))

    def _read(self, path: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as db:
            self.broken = [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for name in ("networks", "sandboxes", "endpoints", "containers"):
                if name in tables:
                    rows = db.execute(f"SELECT id, record FROM {name}")
                    getattr(self, name).update({key: json.loads(data)["record"] for key, data in rows})
            if "leases" in tables:
                self.leases = list(db.execute("SELECT network, address, endpoint FROM leases"))

    @property
    def has_data_plane(self) -> bool:
        return any(driver(n) in {"bridge", "routed"} for n in self.networks.values())

    def plugged(self) -> list[tuple[Record, Record]]:
        """(endpoint, network) of all that have a link."""
        pairs = [
            (e, self.networks[e["network"]]) for e in self.endpoints.values() if e["network"] in self.networks
        ]
        return [(e, n) for e, n in pairs if e["sandbox"] is not None and driver(n) in {"bridge", "routed"}]


def driver(network: Record) -> str:
    return str(network.get("driver", "bridge"))


def address(endpoint: Record, family: int) -> str:
    """The endpoint's address in a family, without its length; empty if it has none."""
    found = [a.partition("/")[0] for a in endpoint["addresses"] if (":" in a) == (family == 6)]
    return str(found[0]) if found else ""


def subnet(network: Record, family: int) -> Record:
    found = [s for s in network.get("subnets", []) if (":" in s["prefix"]) == (family == 6)]
    return dict(found[0]) if found else {}
