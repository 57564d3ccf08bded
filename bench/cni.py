"""CNI: a process a call, ours against Debian's `bridge` with `host-local` and `portmap`; what the process itself costs; and
100 calls at once."""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.daemon import SEALANE, SOCKET, DaemonHost
from bench.host import Host, run
from bench.peers import CNI_PATH, PORT_FIRST, Cni, call
from bench.report import Goal, Row, interleave, median, paired
from sealane.client import Client

ROUNDS = 15
AT_ONCE = 100
BIN_DIR, CONF_DIR = "/run/cni/bin", "/run/cni/net.d"
FASTER = {"ADD": Goal("at least", 4.0), "DEL": Goal("at least", 6.0)}
AT_ONCE_FASTER = Goal("at least", 5.0)
OVERHEAD = Goal("at most", 0.015, "s")

_OURS: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "type": "sealane",
    "ipam": {"type": "sealane", "ranges": [[{"subnet": "10.90.0.0/16"}]]},
}
_LEASED: dict[str, Any] = {
    **_OURS,
    "name": "leased",
    "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "10.91.0.0/16"}]]},
}


class CniDaemon(DaemonHost):
    """A daemon, and the executable as `sealane cni install` writes it."""

    def __init__(self, sandboxes: int) -> None:
        super().__init__(sandboxes, networks=())
        run(*SEALANE, "cni", "install", "--bin-dir", BIN_DIR, "--conf-dir", CONF_DIR)
        # The networks are there, as on a node that has pods already; and what is compiled once is compiled.
        for config in (_OURS, _LEASED):
            self._process_call("ADD", sandboxes - 1, config, f"warm-{config['name']}")
            self._process_call("DEL", sandboxes - 1, config, f"warm-{config['name']}")

    def add(self, number: int) -> float:
        return self._process_call("ADD", number, _OURS)

    def delete(self, number: int) -> float:
        return self._process_call("DEL", number, _OURS)

    def add_leased(self, number: int) -> float:
        return self._process_call("ADD", number, _LEASED)

    def delete_leased(self, number: int) -> float:
        return self._process_call("DEL", number, _LEASED)

    def ask(self, number: int) -> float:
        """What the executable asks, over a connection that is made for it, without the executable."""
        body = {
            "verb": "ADD",
            "container_id": f"c{number}",
            "ifname": "eth0",
            "netns": self.paths[number],
            "config": _configured(_OURS, number),
        }
        started = time.perf_counter()
        with Client(SOCKET) as client:
            client.request("POST", "/v1/cni", json.dumps(body).encode())
        return time.perf_counter() - started

    def version(self, _: int) -> float:
        """The process without its question."""
        return call([f"{BIN_DIR}/sealane"], {}, {"CNI_COMMAND": "VERSION"})[0]

    def all_at_once(self, verb: str, first: int) -> float:
        act = {"ADD": self.add, "DEL": self.delete}[verb]
        return at_once(act, first)

    def _process_call(self, verb: str, number: int, config: dict[str, Any], container: str = "") -> float:
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container or f"c{number}",
            "CNI_NETNS": self.paths[number],
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{BIN_DIR}:{CNI_PATH}",
        }
        return call([f"{BIN_DIR}/sealane"], _configured(config, number), environment)[0]


class CniAtOnce(Cni):
    def __init__(self, sandboxes: int) -> None:
        super().__init__(sandboxes)
        # As on a node that has pods already: of calls that are the first one together, `portmap` fails some, which all
        # find that a chain is missing and all make it.
        self.attach(sandboxes - 1)
        self.detach(sandboxes - 1)

    def all_at_once(self, verb: str, first: int) -> float:
        return at_once({"ADD": self.attach, "DEL": self.detach}[verb], first)


def _configured(config: dict[str, Any], number: int) -> dict[str, Any]:
    mapping = {"hostPort": PORT_FIRST + number, "containerPort": 80, "protocol": "tcp"}
    return {**config, "runtimeConfig": {"portMappings": [mapping]}}


def at_once(act: Callable[[int], float], first: int) -> float:
    """Seconds until the last of AT_ONCE calls has ended that began together."""
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(act, range(first, first + AT_ONCE)))
    return time.perf_counter() - started


def calls() -> list[Row]:
    sandboxes = ROUNDS + 1
    with Host(CniDaemon, 3 * sandboxes) as ours, Host(Cni, sandboxes) as peer:
        took = interleave(
            ROUNDS,
            {
                "ADD": lambda n: ours("add", n),
                "ADD, host-local": lambda n: ours("add_leased", sandboxes + n),
                "question": lambda n: ours("ask", 2 * sandboxes + n),
                "process": lambda n: ours("version", n),
                "peer ADD": lambda n: peer("attach", n),
            },
        )
        took |= interleave(
            ROUNDS,
            {
                "DEL": lambda n: ours("delete", n),
                "DEL, host-local": lambda n: ours("delete_leased", sandboxes + n),
                "peer DEL": lambda n: peer("detach", n),
            },
        )
    rows = [_row(what, took) for what in ("ADD", "ADD, host-local", "DEL", "DEL, host-local")]
    return [*rows, _overhead(took)]


def _row(what: str, took: dict[str, list[float]]) -> Row:
    theirs = took[f"peer {what[:3]}"]
    return Row(
        benchmark="CNI, a process a call",
        what=f"{what}, one port" if "host-local" in what else f"{what}, own addresses, one port",
        ours=median(took[what]),
        unit="s",
        peer="bridge + host-local, portmap",
        theirs=median(theirs),
        ratio=paired(theirs, took[what]),
        goal=FASTER[what[:3]],
    )


def _overhead(took: dict[str, list[float]]) -> Row:
    extra = [process - question for process, question in zip(took["ADD"], took["question"], strict=True)]
    return Row(
        benchmark="CNI, a process a call",
        what="the executable alone: ADD less its question",
        ours=median(extra),
        unit="s",
        goal=OVERHEAD,
        note=f"VERSION, start and end included: {median(took['process']) * 1e3:.1f} ms",
    )


def together() -> list[Row]:
    with Host(CniDaemon, AT_ONCE + 1) as ours, Host(CniAtOnce, AT_ONCE + 1) as peer:
        rows = []
        for verb in ("ADD", "DEL"):
            mine, theirs = ours("all_at_once", verb, 0), peer("all_at_once", verb, 0)
            rows.append(
                Row(
                    benchmark="CNI, 100 at once",
                    what=f"{AT_ONCE} {verb}, until the last is done",
                    ours=mine,
                    unit="s",
                    peer="bridge + host-local, portmap",
                    theirs=theirs,
                    ratio=theirs / mine,
                    goal=AT_ONCE_FASTER if verb == "ADD" else None,
                )
            )
    return rows


def both() -> list[Row]:
    return calls() + together()
