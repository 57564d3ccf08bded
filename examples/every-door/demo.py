"""One network, every door: Docker, podman, CNI and a plain process, in namespaces of their own.

sudo scripts/in-namespaces .venv/bin/python -m examples.every-door.demo
"""

import importlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from examples.kit.screen import Cell
from examples.kit.show import Stage, perform
from examples.kit.trouble import DemoError

# This directory is no package by its name.
engines: Any = importlib.import_module("examples.every-door.engines")

PROJECT = "every-door"
NETWORK = "town"
SUBNETS = ("10.50.0.0/24", "fd50::/64")
GATEWAY = "10.50.0.1"
PINGS = 40
DEAD_S = 1.0
NEEDS = {
    "/usr/sbin/dockerd": "docker.io",
    "podman": "podman",
    "/usr/sbin/runc": "runc",
    "busybox": "busybox-static",
    "ip": "iproute2",
}


def play(stage: Stage) -> None:
    screen = stage.screen
    screen.title(
        "sealane: one network, every door",
        "dockerd, podman, CNI and a plain process, as they are; in private namespaces, so that this machine's network "
        "is not touched.",
    )
    folder = stage.sealane.folder
    root = engines.root_of(folder)
    docker = engines.Docker(screen, folder, NETWORK, SUBNETS)
    podman = engines.Podman(screen, folder, NETWORK, root)
    pod = engines.Pod(screen, folder, NETWORK, GATEWAY)
    plain = engines.Plain(screen, folder, NETWORK, GATEWAY, stage.sealane)
    doors = [docker, podman, pod, plain]

    screen.heading("What each engine is told, once")
    screen.say(
        "Docker finds sealane by its socket in /run/docker/plugins. podman and CNI find an executable:"
    )
    screen.gap()
    docker.start()
    docker.load(root)
    podman.install(stage.sealane)
    pod.install(stage.sealane)

    screen.heading("Each joins by its own door")
    docker.make_network()
    for door in doors:
        door.open()
    screen.gap()
    stage.sealane.show("endpoint", "ls", "--network", NETWORK)

    meet(stage, doors)
    visit(stage, doors)
    crash(stage, doors)

    screen.heading("Each leaves by its own door")
    for door in reversed(doors):
        door.close()
    docker.remove_network()
    screen.gap()
    stage.sealane.show("audit")
    left = stage.sealane.ask("status")
    counts = {what: left[what] for what in ("networks", "sandboxes", "endpoints")}
    if any(counts.values()):
        raise DemoError(f"something is left: {counts}")
    screen.verdict("nothing is left: no network, no sandbox, no endpoint")


def meet(stage: Stage, doors: list[Any]) -> None:
    """Everybody asks everybody for a page, by name, over both families."""
    screen = stage.screen
    screen.heading("Who reaches whom, by name")
    with ThreadPoolExecutor(len(doors)) as pool:
        heard = list(pool.map(lambda door: {other.name: door.fetch(other.name) for other in doors}, doors))
    wrong = []
    table: list[list[Cell]] = []
    for door, pages in zip(doors, heard, strict=True):
        row: list[Cell] = [door.name]
        for other in doors:
            is_good = pages[other.name] == [other.name] * engines.FAMILIES
            row.append(("✓ IPv4, IPv6", "green") if is_good else (f"✗ {pages[other.name]}", "red"))
            if not is_good:
                wrong.append(f"{door.name} hears {pages[other.name]} from {other.name}")
        table.append(row)
    screen.table(("asked by", *(door.name for door in doors)), table)
    screen.gap()
    if wrong:
        raise DemoError("; ".join(wrong))
    screen.verdict(f"{len(doors) ** 2} of {len(doors) ** 2}, each by name and over both families")


def visit(stage: Stage, doors: list[Any]) -> None:
    """The published port of each, from outside."""
    screen = stage.screen
    screen.heading("A visitor from outside")
    for door in doors:
        target = f"{stage.address}:{door.port}"
        screen.prompt(f"curl http://{target}/", where=stage.visitor.name)
        said = stage.visitor.ask("page", target)["text"].strip()
        screen.output(said)
        if said != door.name:
            raise DemoError(f"{target} answers {said!r}, not {door.name}")
    screen.verdict("one published port of each is reached")


def crash(stage: Stage, doors: list[Any]) -> None:
    """Kill the daemon while all talk: packets do not need it."""
    screen = stage.screen
    screen.heading("The daemon is killed while all of them talk")
    addresses = {
        endpoint["name"]: endpoint["addresses"][0].partition("/")[0]
        for endpoint in stage.sealane.ask("endpoint", "ls", "--network", NETWORK)
    }
    ring = [(door, doors[(i + 1) % len(doors)]) for i, door in enumerate(doors)]
    stage.visitor.ask("watch", f"{stage.address}:{doors[0].port}", "/")
    with ThreadPoolExecutor(len(doors)) as pool:
        pings = [pool.submit(door.pings, addresses[other.name], PINGS) for door, other in ring]
        time.sleep(DEAD_S)
        screen.prompt(f"kill -9 {stage.sealane.pid}")
        stage.sealane.stop(signal.SIGKILL)
        time.sleep(DEAD_S)
        screen.prompt("sealane daemon")
        seconds = stage.sealane.start()
        answered = [future.result() for future in pings]
    seen = stage.visitor.ask("unwatch")
    writes = stage.sealane.ask("status")["writes"]
    screen.line(f"  ready again {seconds * 1000:.0f} ms after its start, {writes} kernel objects written")
    screen.gap()
    for (door, other), count in zip(ring, answered, strict=True):
        screen.line(f"  {door.name:<12} → {other.name:<12} {count} of {PINGS} pings answered")
    if seen["failed"] or writes or any(count != PINGS for count in answered):
        raise DemoError(
            f"{seen['failed']} of {seen['tries']} pages failed, {writes} writes, pings {answered}: {seen['why']}"
        )
    screen.verdict(f"no ping lost, and {seen['tries']} pages from outside, none failed")


if __name__ == "__main__":
    # An ordinary daemon leaves Docker's socket alone: here it is asked for.
    os.environ["SEALANE_DOCKER_PLUGIN_SOCKET"] = "/run/docker/plugins/sealane.sock"
    sys.exit(
        perform(play, PROJECT, "Docker, podman, CNI and a plain process on one sealane network.", needs=NEEDS)
    )
