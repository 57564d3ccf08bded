"""The shop from its first link to its last, on the real kernel, in namespaces of its own.

    make demo        or: scripts/in-namespaces .venv/bin/python -m examples.shop.demo

Everything that is shown is measured or tried while you look; what is not as it must be ends the demo with exit code 1.
"""

import json
import shutil
import sys
import time
from typing import Any

from examples.kit import acts
from examples.kit.layout import Layout
from examples.kit.matrix import Matrix, Reach
from examples.kit.ruleset import Generation, Generations, flush
from examples.kit.screen import Cell
from examples.kit.show import Stage, perform
from examples.kit.trouble import DemoError

FILE = "examples/shop/compose.yaml"
PROJECT = "shop"
SERVICES = ("web", "api", "db")
NAMES = ("web", "api", "storage")
HEAL_TIMEOUT_S = 5.0
QUIET_S = 0.3
"""A repair is over when the ruleset has not changed for so long."""

REACH = Reach(
    columns={
        "web:80 direct": ("web", 80),
        "host:8080": ("host", 8080),
        "api:8000": ("api", 8000),
        "db:5432": ("db", 5432),
    },
    allowed={
        "visitor": "host:8080",
        "host": "web:80 direct, host:8080, api:8000, db:5432",
        "web": "web:80 direct, host:8080, api:8000",
        "api": "web:80 direct, host:8080, api:8000, db:5432",
        "db": "api:8000, db:5432",
    },
)
"""The visitor gets in by the published port only; `back` is internal, so `db` and `web` know nothing of each other."""


def play(stage: Stage) -> None:
    screen = stage.screen
    screen.title(
        "sealane: a small shop, from nothing to nothing",
        "In private namespaces of the real kernel: this machine's own network is not touched.",
    )
    begun = time.monotonic()
    layout = acts.up(stage, PROJECT, FILE)
    screen.heading("What is where")
    stage.sealane.show("network", "ls")
    screen.gap()
    acts.draw(stage, layout)
    names(stage, layout)
    request(stage, layout)
    before = acts.reach(stage, layout, REACH)
    repair(stage, layout, before)
    acts.down(stage, layout, FILE)
    screen.gap()
    screen.verdict(f"All as it must be, in {time.monotonic() - begun:.1f} s.")
    screen.line("  Next: scripts/in-namespaces .venv/bin/python -m examples.real.demo")


# --- names ----------------------------------------------------------------------------------------------------------


def names(stage: Stage, layout: Layout) -> None:
    """Every container is asked; what each hears depends on the networks it is on."""
    stage.screen.heading("Names, as each container hears them")
    table: list[list[Cell]] = []
    wrong = []
    for asker in SERVICES:
        heard = resolve(stage, asker)
        for name in NAMES:
            at = layout.at["db" if name == "storage" else name]
            meant = {address for network, address in at.items() if network in layout.at[asker]}
            if heard[name] != meant:
                wrong.append(f"{asker} hears {sorted(heard[name])} for {name}, not {sorted(meant)}")
        table.append([asker, *(("\n".join(sorted(heard[name])) or "·", "cyan") for name in NAMES)])
    stage.sealane.show("exec", "shop-web-1", "getent", "hosts", "api")
    stage.screen.gap()
    stage.screen.table(("asked by", *NAMES), table)
    stage.screen.gap()
    stage.screen.say(
        "`api` has a place on both networks, and an answer for each. web never hears of the store."
    )
    if wrong:
        raise DemoError("names are wrong: " + "; ".join(wrong))


def resolve(stage: Stage, asker: str) -> dict[str, set[str]]:
    """Name → addresses, by the C library in the container."""
    script = 'for name; do getent ahostsv4 "$name" | sed "s/^/$name /"; done'
    found: dict[str, set[str]] = {name: set() for name in NAMES}
    for line in stage.sealane.inside(f"shop-{asker}-1", "sh", "-c", script, "sh", *NAMES).splitlines():
        name, address, *_ = line.split()
        found[name].add(address)
    return found


# --- a request ------------------------------------------------------------------------------------------------------


def request(stage: Stage, layout: Layout) -> None:
    screen = stage.screen
    screen.heading("A request from outside, all the way")
    if not stage.has_outside:
        screen.say("(iproute2 is not installed, so there is no visitor: the host itself asks.)")
    target = f"{stage.address}:8080"
    screen.prompt(f"curl http://{target}/", where=stage.visitor.name)
    answer = stage.visitor.ask("page", target)
    screen.output(answer["text"])
    way = json.loads(stage.visitor.ask("page", target, "/way")["text"])
    screen.gap()
    screen.line(f"  {stage.visitor.name:<8} ", (answer["source"], "cyan"))
    for hop, how in zip(
        way, (f"{target}, a published port", "`api`, on front", "`storage`, on back"), strict=True
    ):
        screen.line("     ↓     ", (how, "dim"))
        screen.line(
            f"  {hop['service']:<8} ",
            (f"{hop['address']}:{hop['port']}".ljust(18), "cyan"),
            (f"is asked by {hop['asked_by']}", "dim"),
        )
    check_way(stage, layout, way, answer)
    screen.gap()
    screen.verdict(
        f"HTTP {answer['status']} in {answer['milliseconds']:.1f} ms; every hop is where `endpoint ls` says"
    )


def check_way(stage: Stage, layout: Layout, way: list[dict[str, str]], answer: dict[str, Any]) -> None:
    hops = [(hop["service"], hop["address"], hop["asked_by"]) for hop in way]
    # The host's own connections are given the address of the bridge they leave by.
    visitor = answer["source"] if stage.has_outside else way[0]["asked_by"]
    meant = [
        ("web", layout.at["web"]["front"], visitor),
        ("api", layout.at["api"]["front"], layout.at["web"]["front"]),
        ("db", layout.at["db"]["back"], layout.at["api"]["back"]),
    ]
    if answer["status"] != 200 or hops != meant:
        raise DemoError(f"the request went {hops} (HTTP {answer['status']}), not {meant}")


# --- repair ---------------------------------------------------------------------------------------------------------


def repair(stage: Stage, layout: Layout, before: Matrix) -> None:
    screen = stage.screen
    screen.heading("Somebody flushes the ruleset")
    told = max((event["number"] for event in stage.sealane.events()), default=0)
    if shutil.which("nft"):
        screen.prompt("nft flush ruleset")
    else:
        screen.say("(nft is not installed: what `nft flush ruleset` sends, sent by hand.)")
    stage.visitor.ask("watch", f"{stage.address}:8080")
    time.sleep(QUIET_S)
    with Generations() as generations:
        flush()
        first, last = observe(generations, stage.sealane.pid)
    seen = stage.visitor.ask("unwatch")
    milliseconds = (last.at - first.at) * 1000
    screen.line(f"    0.0 ms  all rules gone: {first.process}, process {first.pid}")
    screen.line(f"  {milliseconds:5.1f} ms  ", ("all rules back", "green"), f": sealane, process {last.pid}")
    screen.gap()
    vain = f"{seen['failed']} in vain, over {seen['away_ms']:.1f} ms" if seen["failed"] else "none in vain"
    screen.say(f"Meanwhile the {stage.visitor.name} knocked at port 8080 {seen['tries']} times, {vain}.")
    if not seen["back"]:
        raise DemoError("the published port did not come back")
    screen.gap()
    stage.sealane.show("events", "--since", str(told))
    screen.gap()
    after = REACH.probe(stage, layout)
    if after != before:
        raise DemoError("after the repair the matrix is another: " + "; ".join(REACH.mismatches(after)))
    screen.verdict(f"healed {milliseconds:.1f} ms after the flush; the matrix, tried again, is the same")


def observe(generations: Generations, daemon: int) -> tuple[Generation, Generation]:
    """The change of the ruleset that was the flush, and the daemon's last one after it."""
    deadline = time.monotonic() + HEAL_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(QUIET_S)
        heard = generations.heard()
        healing = [generation for generation in heard if generation.pid == daemon]
        if healing and time.monotonic() - healing[-1].at > QUIET_S:
            return heard[0], healing[-1]
    raise DemoError(f"nobody has healed the ruleset within {HEAL_TIMEOUT_S:.0f} s")


if __name__ == "__main__":
    sys.exit(perform(play, PROJECT, "A small shop on sealane, in private namespaces."))
