"""`sealane lab exec` and `sealane lab shell`."""

import argparse
from argparse import ArgumentParser, Namespace

from sealane.cli.commands.exec import command_words
from sealane.cli.commands.lab import add_name, failing
from sealane.cli.context import Context
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.containers import codes


def configure_exec(parser: ArgumentParser) -> None:
    describe(
        parser,
        "It runs in the host's network, mount and UTS namespaces, with this command's terminal, files and directory, and\n"
        "with SEALANE_SOCKET set to the host's daemon. Its exit code is this command's; it is killed if this command is.\n"
        "`underlay` names the namespace between the hosts.",
        [
            "sealane lab exec h1 -- sealane network ls",
            "sealane lab exec h1 -- ping -c 3 h2",
            "sealane lab exec underlay -- tcpdump -ni h1",
        ],
    )
    add_name(parser)
    parser.add_argument("-i", "--interactive", action="store_true", help="ignored: stdin is always passed")
    parser.add_argument("-t", "--tty", action="store_true", help="ignored: the terminal is this command's")
    parser.add_argument("node", metavar="NODE", help="a host or etcd member, or underlay")
    parser.add_argument(
        "command_line", metavar="COMMAND", nargs=argparse.REMAINDER, help="and its arguments, after --"
    )


def configure_shell(parser: ArgumentParser) -> None:
    describe(parser, "$SHELL, else /bin/sh, as `lab exec` runs it.", ["sealane lab shell h1"])
    add_name(parser)
    parser.add_argument("node", metavar="NODE", help="a host or etcd member, or underlay")


def execute(context: Context, arguments: Namespace) -> int:
    return _run(context, arguments, command_words(arguments.command_line))


def shell(context: Context, arguments: Namespace) -> int:
    return _run(context, arguments, [context.environ.get("SHELL") or "/bin/sh"])


def _run(context: Context, arguments: Namespace, command: list[str]) -> int:
    from sealane.lab import client
    from sealane.lab.plan import SOCKET

    folder = client.find_lab(context.environ, arguments.name)
    namespaces = client.enter(folder, arguments.node)
    environ = dict(context.environ) | {"SEALANE_LAB": folder.name, "SEALANE_LAB_NODE": arguments.node}
    environ.pop("SEALANE_SOCKET", None)
    if any(node.name == arguments.node and node.kind == "host" for node in folder.read_plan().nodes):
        environ["SEALANE_SOCKET"] = SOCKET
    return client.execute(namespaces, command, environ)


VERBS = {
    "exec": Verb(configure_exec, failing(execute, codes.FAILED)),
    "shell": Verb(configure_shell, failing(shell, codes.FAILED)),
}
