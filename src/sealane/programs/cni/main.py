"""The executable that container runtimes call. It hands the call to the daemon as it came and prints what comes back.

Starting Python is most of what a call costs. So the way of nearly every ADD and DEL imports two files and knows neither
JSON nor CNI: the daemon reads the call (`sealane.integrations.cni.forwarded`). All else (another verb, an error, a daemon that
is not there or does not know this) is done from the beginning by `whole`, for every verb may be repeated.
"""

import posix

from sealane.programs import SOCKET, daemon, daemon_socket, read_all, write_all
from sealane.programs.cni import CONFIG_BYTES_MAX, VERSIONS

HANDED_OVER = (b"ADD", b"DEL")
TARGET = "/v1/cni/forwarded"
OK = 200
ABOUT = f"CNI plugin sealane: networks of the sealane daemon\nCNI protocol versions supported: {', '.join(VERSIONS)}\n"


def main(socket: str = SOCKET) -> int:
    """The exit status. `socket`: the daemon's; SEALANE_SOCKET goes before it."""
    verb = posix.environ.get(b"CNI_COMMAND", b"")
    if not verb:
        write_all(2, ABOUT.encode())
        return 0
    socket, stdin, failure = daemon_socket(socket), b"", None
    try:
        stdin = read_all(0, CONFIG_BYTES_MAX)
        if verb in HANDED_OVER and _hand_over(verb, stdin, socket):
            return 0
    except Exception as error:
        failure = error
    from sealane.programs.cni import whole

    return whole.run(stdin, socket, failure)


def _hand_over(verb: bytes, stdin: bytes, socket: str) -> bool:
    """Whether it is done, and told, by the rules of `whole`. Raises UnreachableError, LostError, OSError."""
    environ = [name + b"=" + value for name, value in posix.environ.items() if name.startswith(b"CNI_")]
    call = b"\0".join([*environ, b"", stdin])
    status, answer = daemon.exchange(socket, TARGET, call)
    if status == OK and answer.startswith(b'"'):
        # The name of the IPAM plugin, whose turn it is.
        output = _ask_plugin(answer[1:-1], verb, stdin)
        if output is None:
            return False
        if verb == b"DEL":
            return True
        status, answer = daemon.exchange(socket, TARGET, call + b"\0" + output)
    if status != OK:
        return False
    if answer != b"null":
        write_all(1, answer + b"\n")
    return True


def _ask_plugin(name: bytes, verb: bytes, stdin: bytes) -> bytes | None:
    """Its output; None: it has failed, or is not there."""
    from sealane.programs.cni import plugin

    try:
        status, output = plugin.run(plugin.find(name), verb, stdin)
    except OSError:
        return None
    return output if status == 0 else None
