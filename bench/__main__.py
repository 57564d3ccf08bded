"""Us and the peers, side by side in one run: `python -m bench [NAME…] [--json] [--list]`, inside scripts/in-namespaces.

Nothing leaves the machine, and nothing of it is touched: every contender has namespaces of its own.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from bench import attach, changes, check, cni, detach, docker, machine, names, podman, scale, tracing, traffic
from bench.host import HostError
from bench.report import Report, Row, table

BENCHMARKS: dict[str, tuple[Callable[[], list[Row]], str]] = {
    "api": (attach.over_api, "attach over the API, netavark setup, CNI ADD"),
    "detach": (detach.hundred, "detach of 100 endpoints, netavark teardown, CNI DEL"),
    "cni": (cni.both, "CNI ADD and DEL as a process, 100 at once, bridge + host-local + portmap"),
    "podman": (podman.setups, "netavark setup and teardown at 400 containers, our front end and netavark"),
    "traffic": (traffic.between_containers, "container to container: throughput and round trips"),
    "trace": (tracing.bystanders, "bystanders of a trace, and packets that it loses under load"),
    "dns": (names.answers, "local names, aardvark-dns"),
    "check": (check.hundred, "check of 100 × 100 pairs, open, apart, dual-stack"),
    "docker": (docker.starts, "docker run with a port, on our network and on Docker's bridge"),
    "thousand": (scale.thousand, "1,000 endpoints: attach, detach, memory, restart, flushed ruleset"),
    "changes": (changes.ten_thousand, "one change beside 10,000 endpoints, without kernel and store"),
    "inside": (attach.inside, "attach inside the engine, the kernel's floor, at 10 to 4,000 endpoints"),
}
"""In the order in which they run: what leaves most behind for the kernel to take down comes last."""

SPARE_NAMESPACES = 16
"""Of others on the machine, in use or being taken down, that do not disturb."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run; all of it if nothing is named")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    options = parser.parse_args(arguments)
    if options.list:
        for name, (_, what) in BENCHMARKS.items():
            print(f"{name:10} {what}")
        return 0
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}: {', '.join(BENCHMARKS)}")
    missing = machine.missing_tools()
    if missing:
        print(f"bench: first `make tools`, or: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    report, failures = measure(options.names or list(BENCHMARKS))
    print(msgspec.json.encode(report).decode() if options.json else table(report))
    return 1 if failures else 0


def measure(chosen: Sequence[str]) -> tuple[Report, int]:
    """Run benchmarks; one that fails is told of, and the others run all the same."""
    facts = machine.facts()
    at_rest = (machine.namespaces_alive() or 0) + SPARE_NAMESPACES
    rows: list[Row] = []
    failures = 0
    for name in chosen:
        started = time.monotonic()
        try:
            rows += BENCHMARKS[name][0]()
        except HostError as error:
            failures += 1
            print(f"bench: {name}: {error}", file=sys.stderr)
        print(f"bench: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr)
        machine.settle(at_rest)
    facts["load after"] = f"{os.getloadavg()[0]:.2f}"
    return Report(facts, rows), failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
