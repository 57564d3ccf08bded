"""What the command line and the holder say to each other: one packet of JSON each way on a SOCK_SEQPACKET socket."""

from typing import Literal

import msgspec

MAX_BYTES = 256 * 1024
"""Of one answer: the status of 64 hosts takes 40 kB."""

State = Literal["stopped", "starting", "running", "paused", "exited"]
VerbName = Literal["status", "start", "kill", "pause", "resume", "cut", "heal", "enter", "down"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    verb: VerbName
    node: str = ""
    """Of start, kill, pause, resume and enter."""
    signal: int = 0
    """Of kill."""
    links: tuple[tuple[str, str], ...] = ()
    """Of cut and heal; of heal, none means all."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    state: State
    code: int | None = None
    """Exit code of one that has exited; negative: the signal that ended it."""
    pid: int = 0
    """In the lab's pid namespace; 0: nothing runs."""
    log: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    error: str = ""
    hint: str = ""
    nodes: tuple[NodeStatus, ...] = ()
    cut: tuple[tuple[str, str], ...] = ()


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """Said once by the holder, through its stdout, when everything is laid out, or is not."""

    error: str = ""
    hint: str = ""


REQUEST = msgspec.json.Decoder(Request)
REPLY = msgspec.json.Decoder(Reply)
STARTED = msgspec.json.Decoder(Started)
