"""Commits to a store, each acknowledged on standard output: the process that faults are injected into.

    python sqlite_workload.py DIRECTORY

Writes `ack N` when a commit has returned revision N and `nack REASON` when it raised; one that was refused is tried
once more. The parent knows from `states()` what must be there at each revision.
"""

import os
import sys

import msgspec

from sealane.model.change import Change, Delete, Put, Record
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.intent import Intent
from sealane.model.network import Network, Subnet
from sealane.store.base import StoreError
from sealane.store.sqlite import SqliteStore

RESERVE_BYTES = 65536
CHECKPOINT_PAGES = 20
"""Few, so that checkpoints fall into the workload as well."""

NET = Network(id="n1", name="front", subnets=(Subnet(prefix="10.0.0.0/24", gateway="10.0.0.1"),))


def sandbox(number: int) -> Sandbox:
    return Sandbox(id=f"s{number}", name=f"web{number}", netns=None)


def endpoint(number: int, *, text: str = "") -> Endpoint:
    return Endpoint(
        id=f"e{number}",
        name=f"web{number}",
        network="n1",
        sandbox=f"s{number}",
        ifname="eth0",
        mac="02:42:0a:01:00:02",
        addresses=(f"10.0.{number >> 8}.{number & 255}/16", f"fd00::{number:x}/64"),
        labels={"text": text} if text else {},
    )


def batches() -> list[list[Change]]:
    box = Container(id="c1", name="web1", sandbox="s1", spec=msgspec.Raw(b"{}"))
    long = endpoint(2, text="x" * 9000)
    return [
        [Put(NET)],
        [Put(sandbox(1)), Put(endpoint(1)), Put(box)],
        [Put(sandbox(2)), Put(endpoint(2))],
        [Put(long, endpoint(2))],
        [Delete(endpoint(1)), Delete(box), Delete(sandbox(1))],
        [Put(sandbox(3)), Put(endpoint(3)), Delete(long)],
    ]


def states() -> list[dict[str, Record]]:
    """The records by id after each revision; the first is the empty store."""
    intent = Intent()
    result: list[dict[str, Record]] = [{}]
    for batch in batches():
        for change in batch:
            intent.apply(change)
        result.append({record.id: record for record in intent.records()})
    return result


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def commit(store: SqliteStore, batch: list[Change], revision: int) -> int:
    for _ in range(2):
        try:
            revision = store.commit(batch, revision)
        except StoreError as error:
            say(f"nack {error.reason}")
        else:
            say(f"ack {revision}")
            break
    return revision


def main() -> None:
    try:
        store = SqliteStore(sys.argv[1], reserve_bytes=RESERVE_BYTES)
    except StoreError as error:
        say(f"refused {error.reason}")
        return
    store._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    say("open")
    revision = store.snapshot().revision
    for batch in batches()[revision:]:
        after = commit(store, batch, revision)
        if after == revision:
            break
        revision = after
    store.close()
    say("closed")


if __name__ == "__main__":
    main()
