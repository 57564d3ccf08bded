"""A further process in a container, run to its end."""

import contextlib
import json
import socket

from sealane.containers.frames import ERRORS, EXIT, INPUT, OUTPUT, Peer, frame


def ran(start, data=b""):
    """Of what `Runtime.exec` gives: its exit code, output, errors, and why it never ran."""
    mine, theirs = socket.socketpair()
    with theirs:
        start(theirs, b"")
    with contextlib.closing(Peer(mine)) as peer:
        mine.setblocking(True)
        peer.send((frame(INPUT, data) if data else b"") + frame(INPUT))
        said = []
        while EXIT not in dict(said):
            assert peer.is_open, said
            said += peer.receive()
    out, err, end = (
        b"".join(part for kind, part in said if kind == desired) for desired in (OUTPUT, ERRORS, EXIT)
    )
    return json.loads(end)["exit_code"], out, err, json.loads(end)["error"]
