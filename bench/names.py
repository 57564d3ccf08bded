"""Questions for names of one network, answered by the daemon's resolver and by aardvark-dns. The server has one core, and
`dnsperf`, in a container that is on the network, the other.

How many are answered; and how long one waits while another container asks, as fast as it can, for names that nobody has.
"""

import os
import re
import signal
import subprocess
import time
from functools import partial

from bench.daemon import DaemonHost
from bench.host import Host, HostError, in_sandbox, make_sandboxes, run
from bench.report import Goal, Row, interleave, median, paired, quantile

AARDVARK = "/usr/lib/podman/aardvark-dns"
NAMES = 100
ROUNDS = 4
SECONDS = 3
GATEWAY = "10.66.0.1"
QUESTIONS, NOBODY = "/run/questions", "/run/nobody"
SERVER_CORE, CLIENT_CORE = 0, 1
CLIENTS, OUTSTANDING = "4", "200"
START_TIMEOUT_S = 5.0
_RATE = re.compile(r"Queries per second:\s+([0-9.]+)")
FLOOD_OUTSTANDING, CALM_RATE = "2000", "200"
_LATENCY = re.compile(r"^> NOERROR .* ([0-9.]+)$", re.MULTILINE)
_ALL_FOUND = re.compile(r"Response codes:\s+NOERROR \d+ \(100\.00%\)")


def load(sandbox: str, suffix: str) -> float:
    """Answers a second, all of them right, or HostError."""
    questions = "".join(f"w{number}{suffix} A\n" for number in range(NAMES))
    with open(QUESTIONS, "w", encoding="ascii") as file:
        file.write(questions)
    out = in_sandbox(
        sandbox,
        *("taskset", "-c", str(CLIENT_CORE), "dnsperf", "-s", GATEWAY, "-d", QUESTIONS),
        *("-l", str(SECONDS), "-c", CLIENTS, "-q", OUTSTANDING),
    )
    rate = _RATE.search(out)
    if rate is None or not _ALL_FOUND.search(out):
        raise HostError(f"dnsperf: {out}")
    return float(rate[1])


def delay(sandbox: str, flooder: str, suffix: str) -> float:
    """Seconds, the 99th percentile, that a calm asker waits while another floods; HostError if any answer fails."""
    with open(NOBODY, "w", encoding="ascii") as file:
        file.write("".join(f"nobody{number}{suffix} A\n" for number in range(100_000)))
    pinned = ("taskset", "-c", str(CLIENT_CORE), "dnsperf", "-s", GATEWAY, "-l", str(SECONDS))
    flood = subprocess.Popen(
        ["nsenter", f"--net={flooder}", *pinned, "-d", NOBODY, "-c", CLIENTS, "-q", FLOOD_OUTSTANDING],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        out = in_sandbox(sandbox, *pinned, "-d", QUESTIONS, "-Q", CALM_RATE, "-v")
    finally:
        flood.wait()
    latencies = [float(found) for found in _LATENCY.findall(out)]
    if not latencies or not _ALL_FOUND.search(out):
        raise HostError(f"dnsperf: {out[-2000:]}")
    return quantile(latencies, 0.99)


class OurNames(DaemonHost):
    def __init__(self) -> None:
        super().__init__(NAMES)
        for number in range(NAMES):
            self.client.request("POST", "/v1/attach", {**self.attach_request(number), "name": f"w{number}"})
        assert self._process is not None
        # Threads that are there already stay where they are unless moved one by one.
        for thread in os.listdir(f"/proc/{self._process.pid}/task"):
            os.sched_setaffinity(int(thread), {SERVER_CORE})

    def ask(self, _round: int) -> float:
        return load(self.paths[0], "")

    def ask_beside_a_flood(self, _round: int) -> float:
        return delay(self.paths[0], self.paths[1], "")


class Aardvark:
    """As netavark starts it: a file a network, and the containers' names in it."""

    def __init__(self) -> None:
        self._sandbox, self._flooder = make_sandboxes(2)
        run(
            "ip",
            "-batch",
            "-",
            text="link add br0 type bridge\naddr add 10.66.0.1/24 dev br0\nlink set br0 up\n",
        )
        for number, sandbox in enumerate((self._sandbox, self._flooder)):
            outer, address = f"v{number}", f"10.66.0.{number + 2}/24"
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", sandbox)
            run("ip", "link", "set", outer, "master", "br0", "up")
            in_sandbox(
                sandbox,
                *("ip", "-batch", "-"),
                text=f"link set lo up\naddr add {address} dev eth0\nlink set eth0 up\n",
            )
        self._config = "/run/aardvark"
        os.makedirs(self._config)
        lines = [GATEWAY, f"{NAMES:064x} 10.66.0.2  asker", f"{NAMES + 1:064x} 10.66.0.3  flooder"]
        lines += [f"{n:064x} 10.66.1.{n + 1}  w{n}" for n in range(NAMES)]
        with open(f"{self._config}/bench", "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        # It forks, and the process that was started ends once the other serves.
        argv = ["taskset", "-c", str(SERVER_CORE), AARDVARK, "--config", self._config, "-p", "53", "run"]
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._pid = self._wait_for_pid()

    def _wait_for_pid(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                with open(f"{self._config}/aardvark.pid", encoding="ascii") as file:
                    return int(file.read())
            except (OSError, ValueError):
                time.sleep(0.01)
        raise HostError("aardvark-dns did not start")

    def ask(self, _round: int) -> float:
        return load(self._sandbox, ".dns.podman")

    def ask_beside_a_flood(self, _round: int) -> float:
        return delay(self._sandbox, self._flooder, ".dns.podman")

    def close(self) -> None:
        os.kill(self._pid, signal.SIGTERM)


def answers() -> list[Row]:
    with Host(OurNames) as ours, Host(Aardvark) as aardvark:
        rates, waits = (
            interleave(ROUNDS, {"ours": partial(ours, verb), "theirs": partial(aardvark, verb)})
            for verb in ("ask", "ask_beside_a_flood")
        )
    return [
        Row(
            benchmark="DNS",
            what=f"{NAMES} local names",
            ours=median(rates["ours"]),
            unit="/s",
            peer="aardvark-dns",
            theirs=median(rates["theirs"]),
            ratio=paired(rates["ours"], rates["theirs"]),
            goal=Goal("at least", 1.0),
            note="server on one core, dnsperf on the other",
        ),
        Row(
            benchmark="DNS",
            what="beside a flood, p99",
            ours=median(waits["ours"]),
            unit="s",
            peer="aardvark-dns",
            theirs=median(waits["theirs"]),
            ratio=paired(waits["theirs"], waits["ours"]),
            goal=Goal("at least", 1.0),
            note="another container asks for names that nobody has",
        ),
    ]
