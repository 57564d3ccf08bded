"""The executable that podman calls for its networks: read, ask the daemon once, print.

    netavark [-f FILE] [OPTION…] setup|teardown NETNS | update NAME --network-dns-servers A… | create | firewall-reload | version

As netavark.1 has it. Options that tell netavark how to do what sealane does its own way are taken and left alone.
"""

from __future__ import annotations

import posix
import sys

from sealane import __version__
from sealane.programs import SOCKET, api, daemon, daemon_socket, read_all, text, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = "2.1.0"
"""The netavark whose protocol this is."""
INPUT_BYTES_MAX = 4 << 20

_FLAGS = {
    "-f": "file", "--file": "file",
    "-c": "config", "--config": "config",
    "-r": "rootless", "--rootless": "rootless",
    "-a": "aardvark-binary", "--aardvark-binary": "aardvark-binary",
    "--firewall-driver": "firewall-driver",
    "--plugin-directory": "plugin-directory",
    "--network-dns-servers": "network-dns-servers",
}  # fmt: skip
ABOUT = """Networks for podman from the sealane daemon, called as netavark is (netavark.1).

Usage: netavark [-f FILE] COMMAND
  setup NETNS       attach the container that the input describes
  teardown NETNS    detach it
  update NETWORK --network-dns-servers ADDRESS…
  create            complete a network's description
  firewall-reload   look after the rules once
  version
"""


class NetavarkError(Exception):
    pass


class Call:
    """A command line, read."""

    def __init__(self, arguments: list[str]) -> None:
        """Raises NetavarkError."""
        self.options: dict[str, list[str]] = {}
        self.words: list[str] = []
        rest = iter(arguments)
        for word in rest:
            flag, assigned, value = word.partition("=")
            if flag in _FLAGS:
                given = value if assigned else next(rest, None)
                if given is None:
                    raise NetavarkError(f"{flag} needs a value")
                self.options.setdefault(_FLAGS[flag], []).append(given)
            elif word.startswith("-"):
                raise NetavarkError(f"there is no option {word}")
            else:
                self.words.append(word)

    def option(self, name: str) -> str:
        return self.options.get(name, [""])[-1]

    def only(self, what: str) -> str:
        """The one word after the command. Raises NetavarkError."""
        if len(self.words) != 2:
            raise NetavarkError(f"{self.words[0]} takes one {what}")
        return self.words[1]


def main(socket: str = SOCKET) -> int:
    """The exit status. `socket`: the daemon's; SEALANE_SOCKET goes before it."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        return _print(ABOUT)
    if arguments[0] in {"-V", "--version"}:
        return _print(f"netavark {VERSION} (sealane {__version__})\n")
    try:
        answer = _do(Call(arguments), daemon_socket(socket))
    except (NetavarkError, daemon.UnreachableError) as error:
        hint = f": {error.hint}" if isinstance(error, daemon.UnreachableError) else ""
        return _fail(f"{error}{hint}")
    except api.RefusedError as error:
        return _fail(f"{error.message}: {error.hint}" if error.hint else error.message)
    except Exception as error:  # Whatever it is, podman reads JSON.
        return _fail(f"{type(error).__name__}: {error}")
    return _print(f"{text.dumps(answer)}\n") if answer is not None else 0


def _do(call: Call, socket: str) -> Any:
    if call.option("rootless") == "true":
        raise NetavarkError(
            "rootless podman keeps its networks to itself: sealane's are the host's, run podman as root"
        )
    command = call.words[0] if call.words else ""
    act = _COMMANDS.get(command)
    if act is not None:
        return act(call, socket)
    if command == "version":
        return {
            "version": VERSION,
            "commit": f"sealane {__version__}",
            "build_time": "",
            "target": sys.platform,
        }
    if command in {"firewalld-reload", "nftables-reload", "dhcp-proxy"}:
        raise NetavarkError(
            f"{command} is not needed: the sealane daemon watches its rules, and gives addresses itself"
        )
    raise NetavarkError(f"there is no command {command!r}: {', '.join(_COMMANDS)} or version")


def _setup(call: Call, socket: str) -> Any:
    request = {"verb": "setup", "netns": call.only("namespace path"), "container": _input(call)}
    return _ask(socket, request)["status"]


def _teardown(call: Call, socket: str) -> None:
    _ask(socket, {"verb": "teardown", "netns": call.only("namespace path"), "container": _input(call)})


def _update(call: Call, socket: str) -> None:
    servers = [
        part for given in call.options.get("network-dns-servers", []) for part in given.split(",") if part
    ]
    _ask(socket, {"verb": "update", "network": call.only("network"), "dns_servers": servers})


def _create(call: Call, socket: str) -> Any:
    return _ask(socket, {"verb": "create", "create": _input(call)})["network"]


def _reload(_: Call, socket: str) -> None:
    _ask(socket, {"verb": "firewall-reload"})


_COMMANDS: dict[str, Callable[[Call, str], Any]] = {
    "setup": _setup,
    "teardown": _teardown,
    "update": _update,
    "create": _create,
    "firewall-reload": _reload,
}


def _ask(socket: str, asked: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.ask(socket, "/v1/netavark", asked)
    return answer


def _input(call: Call) -> Any:
    path = call.option("file")
    descriptor = 0
    if path:
        try:
            descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as error:
            raise NetavarkError(f"{path}: {error.strerror}") from None
    data = read_all(descriptor, INPUT_BYTES_MAX)
    if len(data) > INPUT_BYTES_MAX:
        raise NetavarkError(f"the input is longer than {INPUT_BYTES_MAX} bytes")
    try:
        return text.loads(data)
    except ValueError as error:
        raise NetavarkError(f"the input is not JSON: {error}") from None


def _fail(message: str) -> int:
    _print(f"{text.dumps({'error': message})}\n")
    return 1


def _print(what: str) -> int:
    write_all(1, what.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
