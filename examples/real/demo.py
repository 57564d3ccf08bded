"""nginx, an application, PostgreSQL and redis on sealane, from outside to inside, in namespaces of its own.

sudo scripts/in-namespaces .venv/bin/python -m examples.real.demo
"""

import json
import signal
import sys
import time

from examples.kit import acts
from examples.kit.matrix import Reach
from examples.kit.show import Stage, perform
from examples.kit.trouble import DemoError

FILE = "examples/real/compose.yaml"
PROJECT = "real"
FORM = "name=Ada&text=It%27s+%22here%22"
DEAD_S = 0.5
NEEDS = {
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "pg_isready": "postgresql-client",
    "/usr/lib/postgresql/*/bin/postgres": "postgresql",
}

REACH = Reach(
    columns={
        "host:8080": ("host", 8080),
        "nginx:80": ("nginx", 80),
        "app:8000": ("app", 8000),
        "db:5432": ("db", 5432),
        "cache:6379": ("cache", 6379),
    },
    allowed={
        "visitor": "host:8080",
        "nginx": "host:8080, nginx:80, app:8000",
        "app": "host:8080, nginx:80, app:8000, db:5432, cache:6379",
        "db": "app:8000, db:5432",
        "cache": "app:8000, cache:6379",
    },
)


def play(stage: Stage) -> None:
    screen = stage.screen
    screen.title(
        "sealane: nginx in front of PostgreSQL",
        "Debian's own programs, each in a container; in private namespaces, so that this machine's network is not "
        "touched.",
    )
    layout = acts.up(stage, PROJECT, FILE)
    screen.heading("What is where")
    acts.draw(stage, layout)
    guestbook(stage)
    acts.reach(stage, layout, REACH)
    crash(stage)
    acts.down(stage, layout, FILE)
    screen.gap()
    screen.line("  Next: examples/real/README.md, what each piece does and how to keep it")


def guestbook(stage: Stage) -> None:
    """Write and read, from outside."""
    screen = stage.screen
    screen.heading("A guestbook")
    target = f"{stage.address}:8080"
    screen.prompt(f"curl -d '{FORM}' http://{target}/", where=stage.visitor.name)
    written = stage.visitor.ask("page", target, "/", FORM)
    screen.output(written["text"])
    screen.prompt(f"curl http://{target}/", where=stage.visitor.name)
    read = stage.visitor.ask("page", target)
    screen.output(json.dumps(json.loads(read["text"]), indent=2))
    screen.gap()
    found = json.loads(read["text"])
    texts = [entry["text"] for entry in found.get("entries", ())]
    if written["status"] != 201 or read["status"] != 200 or texts != ['It\'s "here"']:
        raise DemoError(f"the guestbook answers {written['text']} and {read['text']}")
    screen.verdict("visitor → nginx → app → PostgreSQL, and a count of visits in redis")
    if found["visitor"] != read["source"] and stage.has_outside:
        raise DemoError(f"nginx sees {found['visitor']}, but the visitor is {read['source']}")


def crash(stage: Stage) -> None:
    """Kill the daemon while people read: packets do not need it."""
    screen = stage.screen
    screen.heading("The daemon is killed while people read")
    before = stage.sealane.ask("status")["writes"]
    stage.visitor.ask("watch", f"{stage.address}:8080", "/")
    time.sleep(DEAD_S)
    screen.prompt(f"kill -9 {stage.sealane.pid}")
    stage.sealane.stop(signal.SIGKILL)
    time.sleep(DEAD_S)
    screen.prompt("sealane daemon")
    seconds = stage.sealane.start()
    time.sleep(DEAD_S)
    seen = stage.visitor.ask("unwatch")
    writes = stage.sealane.ask("status")["writes"]
    screen.line(
        f"  ready again {seconds * 1000:.0f} ms after its start, {writes} kernel objects written (before: {before})"
    )
    screen.gap()
    if seen["failed"] or writes:
        raise DemoError(
            f"{seen['failed']} of {seen['tries']} pages failed, {writes} kernel objects were written: {seen['why']}"
        )
    screen.verdict(f"{seen['tries']} pages read meanwhile, none failed")


if __name__ == "__main__":
    sys.exit(
        perform(play, PROJECT, "nginx, PostgreSQL and redis on sealane.", needs=NEEDS, several_users=True)
    )
