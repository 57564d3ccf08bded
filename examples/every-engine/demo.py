"""One network, every integration: Docker, podman, CNI and a plain process, in namespaces of their own.

sudo scripts/in-namespaces .venv/bin/python -m examples.every-engine.demo
"""

import importlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from examples.kit import acts
from examples.kit.screen import Cell
from examples.kit.show import Stage, perform
from examples.kit.trouble import DemoError

# This directory is no package by its name.
engines: Any = importlib.import_module("examples.every-engine.engines")

PROJECT = "every-engine"
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
        "sealane: one network, every integration",
        "dockerd, podman, CNI and a plain process, as they are; in private namespaces, so that this machine's network "
        "is not touched.",
    )
    folder = stage.sealane.folder
    root = engines.root_of(folder)
    docker = engines.Docker(screen, folder, NETWORK, SUBNETS)
    podman = engines.Podman(screen, folder, NETWORK, root)
    pod = engines.Pod(screen, folder, NETWORK, GATEWAY)
    plain = engines.Plain(screen, folder, NETWORK, GATEWAY, stage.sealane)
    integrations = [docker, podman, pod, plain]

    screen.heading("What each engine is told, once")
    screen.say(
        "Docker finds sealane by its socket in /run/docker/plugins. podman and CNI find an executable:"
    )
    screen.gap()
    docker.start()
    docker.load(root)
    podman.install(stage.sealane)
    pod.install(stage.sealane)

    screen.heading("Each joins by its own integration")
    docker.make_network()
    for integration in integrations:
        integration.open()
    for integration in integrations:
        acts.listen(stage, f"{stage.address}:{integration.port}")
    screen.gap()
    stage.sealane.show("endpoint", "ls", "--network", NETWORK)

    meet(stage, integrations)
    visit(stage, integrations)
    crash(stage, integrations)

    screen.heading("Each leaves by its own integration")
    for integration in reversed(integrations):
        integration.close()
    docker.remove_network()
    screen.gap()
    stage.sealane.show("audit")
    left = stage.sealane.ask("status")
    counts = {what: left[what] for what in ("networks", "sandboxes", "endpoints")}
    if any(counts.values()):
        raise DemoError(f"something is left: {counts}")
    screen.verdict("nothing is left: no network, no sandbox, no endpoint")


def meet(stage: Stage, integrations: list[Any]) -> None:
    """Everybody asks everybody for a page, by name, over both families."""
    screen = stage.screen
    screen.heading("Who reaches whom, by name")
    with ThreadPoolExecutor(len(integrations)) as pool:
        heard = list(
            pool.map(
                lambda integration: {other.name: integration.fetch(other.name) for other in integrations},
                integrations,
            )
        )
    wrong = []
    table: list[list[Cell]] = []
    for integration, pages in zip(integrations, heard, strict=True):
        row: list[Cell] = [integration.name]
        for other in integrations:
            is_good = pages[other.name] == [other.name] * engines.FAMILIES
            row.append(("✓ IPv4, IPv6", "green") if is_good else (f"✗ {pages[other.name]}", "red"))
            if not is_good:
                wrong.append(f"{integration.name} hears {pages[other.name]} from {other.name}")
        table.append(row)
    screen.table(("asked by", *(integration.name for integration in integrations)), table)
    screen.gap()
    if wrong:
        raise DemoError("; ".join(wrong))
    screen.verdict(
        f"{len(integrations) ** 2} of {len(integrations) ** 2}, each by name and over both families"
    )


def visit(stage: Stage, integrations: list[Any]) -> None:
    """The published port of each, from outside."""
    screen = stage.screen
    screen.heading("A visitor from outside")
    for integration in integrations:
        target = f"{stage.address}:{integration.port}"
        screen.prompt(f"curl http://{target}/", where=stage.visitor.name)
        said = stage.visitor.ask("page", target)["text"].strip()
        screen.output(said)
        if said != integration.name:
            raise DemoError(f"{target} answers {said!r}, not {integration.name}")
    screen.verdict("one published port of each is reached")


def crash(stage: Stage, integrations: list[Any]) -> None:
    """Kill the daemon while all talk: packets do not need it."""
    screen = stage.screen
    screen.heading("The daemon is killed while all of them talk")
    addresses = {
        endpoint["name"]: endpoint["addresses"][0].partition("/")[0]
        for endpoint in stage.sealane.ask("endpoint", "ls", "--network", NETWORK)
    }
    ring = [
        (integration, integrations[(i + 1) % len(integrations)]) for i, integration in enumerate(integrations)
    ]
    stage.visitor.ask("watch", f"{stage.address}:{integrations[0].port}", "/")
    with ThreadPoolExecutor(len(integrations)) as pool:
        pings = [pool.submit(integration.pings, addresses[other.name], PINGS) for integration, other in ring]
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
    for (integration, other), count in zip(ring, answered, strict=True):
        screen.line(f"  {integration.name:<12} → {other.name:<12} {count} of {PINGS} pings answered")
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
