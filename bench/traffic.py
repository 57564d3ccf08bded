"""Between two containers: throughput and round trips, through our networks and through the barest thing that could do
the same. Each end has a core for itself."""

import json
import subprocess
import sys
from typing import Any, Literal

from bench.daemon import DaemonHost
from bench.host import Host, in_sandbox, make_sandboxes, run
from bench.report import Goal, Row, median, paired

Driver = Literal["bridge", "routed"]

ROUNDS = 8
STREAM_S = 1
TRIPS_S = 0.6
PORT = 5201
TIMEOUT_S = 30.0
GOAL = Goal("at least", 0.97)
MODES = {"spin": "spinning", "wait": "waiting"}
SERVER_CORE, CLIENT_CORE = "0", "1"
HOOKS = "/proc/sys/net/bridge/bridge-nf-call-{}"


class Path:
    """Two sandboxes and the way from the second to the first."""

    paths: list[str]
    address: str
    """Of the first."""

    def set_bridge_netfilter(self, value: int) -> None:
        """Whether frames between ports of one bridge pass the IP hooks (per namespace since Linux 5.3)."""
        for table in ("iptables", "ip6tables", "arptables"):
            with open(HOOKS.format(table), "w", encoding="ascii") as file:
                file.write(str(value))

    def trips(self, mode: str = "spin") -> dict[str, float]:
        """Seconds of a round trip: {"p5", "median", "count"}. See `bench.pingpong`."""
        me = [sys.executable, "-m", "bench.pingpong"]
        server = [*me, "serve", str(PORT), mode]
        found: dict[str, float] = self._pair(
            server, [*me, "ask", self.address, str(PORT), mode, str(TRIPS_S)]
        )
        return found

    def stream(self) -> float:
        """Gbit/s of one TCP connection."""
        server = ["iperf3", "-s", "-1", "-p", str(PORT)]
        # A client that comes before its server waits a moment and comes again.
        client = f"for i in 1 2 3 4 5; do iperf3 -c {self.address} -p {PORT} -t {STREAM_S} -J && exit; sleep 0.1; done; exit 1"
        answer = self._pair(server, ["sh", "-c", f"sleep 0.05; {client}"])
        return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9

    def _pair(self, server: list[str], client: list[str]) -> Any:
        first, second = self.paths[:2]
        enter = ["nsenter", f"--net={first}", "taskset", "-c", SERVER_CORE]
        process = subprocess.Popen([*enter, *server], stdout=subprocess.DEVNULL)
        try:
            out = in_sandbox(second, "taskset", "-c", CLIENT_CORE, *client)
            process.wait(TIMEOUT_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return json.loads(out[out.rindex("\n{") if "\n{" in out else 0 :])


class OursPath(DaemonHost, Path):
    def __init__(self, driver: Driver, options: dict[str, str] | None = None) -> None:
        super().__init__(2, driver, options=options)
        views = [self.client.request("POST", "/v1/attach", self.attach_request(number)) for number in (0, 1)]
        self.address = views[0]["addresses"][0].partition("/")[0]


class BarePath(Path):
    """Made by hand with `ip`, without a single rule."""

    def __init__(self, driver: Driver) -> None:
        self.paths = make_sandboxes(2)
        self.address = "10.66.0.10"
        run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        if driver == "bridge":
            run(
                "ip",
                "-batch",
                "-",
                text="link add br0 type bridge\naddr add 10.66.0.1/24 dev br0\nlink set br0 up\n",
            )
        else:
            run("ip", "addr", "add", "10.66.0.1/32", "dev", "lo")
        for number, path in enumerate(self.paths):
            self._plug(driver, number, path)

    @staticmethod
    def _plug(driver: Driver, number: int, path: str) -> None:
        address, link = f"10.66.0.{10 + number}", f"v{number}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", path)
        if driver == "bridge":
            run("ip", "link", "set", link, "master", "br0", "up")
            inside = f"addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 10.66.0.1\n"
        else:
            run("ip", "link", "set", link, "up")
            run("ip", "route", "add", address, "dev", link)
            inside = f"addr add {address}/32 dev eth0\nlink set eth0 up\nroute add 10.66.0.1 dev eth0\n"
            inside += "route add default via 10.66.0.1\n"
        in_sandbox(path, "ip", "-batch", "-", text=f"link set lo up\n{inside}")


def between_containers() -> list[Row]:
    return [
        row
        for driver, netfilter in (("bridge", 0), ("bridge", 1), ("routed", 0))
        for row in _compare(driver, netfilter)  # type: ignore[arg-type]
    ]


def _compare(driver: Driver, netfilter: int) -> list[Row]:
    """Against the bare path: as it is, and the long way, which packets go where the fast path is closed."""
    with (
        Host(OursPath, driver) as ours,
        Host(OursPath, driver, {"fast-path": "false"}) as long_way,
        Host(BarePath, driver) as bare,
    ):
        hosts: dict[str, Host[Any]] = {"bare": bare, "ours": ours, "long": long_way}
        for host in hosts.values():
            host("set_bridge_netfilter", netfilter)
        streams: dict[str, list[float]] = {name: [] for name in hosts}
        trips: dict[str, dict[str, list[dict[str, float]]]] = {
            mode: {name: [] for name in hosts} for mode in MODES
        }
        for round_ in range(-1, ROUNDS):
            # A B C, C B A, …: who goes first has it no better.
            for name in list(hosts)[:: -1 if round_ % 2 else 1]:
                found = {mode: hosts[name]("trips", mode) for mode in MODES}
                stream = hosts[name]("stream")
                if round_ >= 0:
                    streams[name].append(stream)
                    for mode in MODES:
                        trips[mode][name].append(found[mode])
    what = driver + (f", bridge-nf-call {netfilter}" if driver == "bridge" else "")
    peer = "bare bridge" if driver == "bridge" else "bare veth route"
    rows = []
    for name, shown, goal in (("ours", what, GOAL), ("long", f"{what}, the long way", None)):
        rows.append(_stream_row(shown, peer, streams[name], streams["bare"], goal))
        rows += [
            _trips_row(mode, shown, peer, trips[mode][name], trips[mode]["bare"], goal) for mode in MODES
        ]
    return rows


def _stream_row(what: str, peer: str, ours: list[float], bare: list[float], goal: Goal | None) -> Row:
    return Row(
        benchmark="throughput",
        what=what,
        ours=median(ours),
        unit="Gbit/s",
        peer=peer,
        theirs=median(bare),
        ratio=paired(ours, bare),
        goal=goal,
        note=f"of the best rounds {max(ours) / max(bare):.2f} ×",
    )


def _trips_row(
    mode: str,
    what: str,
    peer: str,
    ours: list[dict[str, float]],
    bare: list[dict[str, float]],
    goal: Goal | None,
) -> Row:
    p5, bare_p5 = [t["p5"] for t in ours], [t["p5"] for t in bare]
    middle, bare_middle = [t["median"] for t in ours], [t["median"] for t in bare]
    return Row(
        benchmark=f"round trip, {MODES[mode]}",
        what=what,
        ours=median(p5),
        unit="s",
        peer=peer,
        theirs=median(bare_p5),
        ratio=paired(bare_p5, p5),
        goal=goal,
        note=f"5th percentiles; of the medians {paired(bare_middle, middle):.2f} ×",
    )
