"""Acts that every demo has: up, who reaches whom, down."""

import shutil
import socket
import subprocess
import time

from examples.kit import processes
from examples.kit.layout import Layout
from examples.kit.matrix import Matrix, Reach
from examples.kit.show import Stage
from examples.kit.trouble import DemoError

PORT = 8080
"""Of the host, that leads to a demo's page."""

LISTENS_WITHIN_S = 30.0


def up(stage: Stage, project: str, file: str) -> Layout:
    stage.screen.heading("Up")
    begun = time.monotonic()
    stage.sealane.watch("up", "-d", "-f", file)
    listen(stage, f"{stage.address}:{PORT}")
    seconds = time.monotonic() - begun
    layout = Layout(stage.sealane, project)
    stage.screen.gap()
    stage.screen.verdict(
        f"{len(layout.networks)} networks and {len(layout.pids)} containers, port {PORT} answers, in {seconds * 1000:.0f} ms"
    )
    return layout


def listen(stage: Stage, target: str) -> None:
    """Wait until it is answered: that a container runs does not mean that its program listens already."""
    deadline = time.monotonic() + LISTENS_WITHIN_S
    while not all(stage.visitor.ask("open_ports", [target])):
        if time.monotonic() > deadline:
            raise DemoError(f"nothing listens at {target} after {LISTENS_WITHIN_S:.0f} s")
        time.sleep(0.01)


def draw(stage: Stage, layout: Layout) -> None:
    """Who is on which network, from outside to inside."""
    screen = stage.screen
    if stage.has_outside:
        outsider = stage.visitor.ask("page", f"{stage.address}:{PORT}")["source"]
        screen.line("  visitor ", (outsider, "cyan"))
        screen.line("     │")
    screen.line("  host    ", (stage.address, "cyan"), f"  port {PORT} is published")
    for network in sorted(layout.networks, key=layout.is_internal):
        note = "internal: no way in, no way out" if layout.is_internal(network) else ""
        screen.line("" if note else "     │")
        screen.line(f"  {network:<7} ", (f"{layout.subnet(network):<15}", "dim"), "  ", (note, "yellow"))
        members = [(service, at[network]) for service, at in layout.at.items() if network in at]
        for number, (service, address) in enumerate(members):
            branch = "└──" if number == len(members) - 1 else "├──"
            screen.line(f"     {branch} {service:<6} ", (address, "cyan"))


def reach(stage: Stage, layout: Layout, expectation: Reach) -> Matrix:
    """Try and show; DemoError if anything is not as expected."""
    stage.screen.heading("Who reaches whom, tried")
    found = expectation.probe(stage, layout)
    stage.screen.table(("from", *expectation.columns), expectation.rows(found))
    stage.screen.gap()
    wrong = expectation.mismatches(found)
    if wrong:
        raise DemoError("the matrix is wrong: " + "; ".join(wrong))
    count = sum(len(row) for row in found.values())
    stage.screen.verdict(
        f"all {count} as they must be: in by the published port only, internal networks sealed"
    )
    return found


def down(stage: Stage, layout: Layout, file: str) -> None:
    """Take it down, audit, and let others look too; DemoError if anything is left."""
    screen = stage.screen
    screen.heading("Down, and nothing is left")
    stage.sealane.watch("down", "-f", file)
    screen.gap()
    stage.sealane.show("audit")
    screen.gap()
    screen.say("The same, seen by others:")
    if shutil.which("ip"):
        screen.prompt("ip -brief link")
        screen.output(_run("ip", "-brief", "link"))
    else:
        screen.output("links: " + " ".join(name for _, name in socket.if_nameindex()))
    if shutil.which("nft"):
        screen.prompt("nft list tables")
        screen.output(_run("nft", "list", "tables") or "(none)")
    screen.gap()
    left = leftovers(stage, layout)
    if left:
        raise DemoError("left behind: " + ", ".join(left))
    screen.verdict("no link, no table, no namespace and no process is left")


def leftovers(stage: Stage, layout: Layout) -> list[str]:
    """What is there that was not before, found without asking sealane."""
    known = {"lo", "eth0"} if stage.has_outside else {"lo"}
    left = [f"link {name}" for _, name in socket.if_nameindex() if name not in known]
    if shutil.which("nft"):
        left += _run("nft", "list", "tables").splitlines()
    left += [f"process {pid}" for pid in layout.pids if processes.is_alive(pid)]
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        # A namespace is kept by a mount of its file.
        left += [f"namespace {line.split()[1]}" for line in mounts if line.split()[2] == "nsfs"]
    return left


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
