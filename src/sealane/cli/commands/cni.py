"""`sealane cni …`: puts the CNI executables and a conflist where runtimes look for them. Asks nothing of the daemon."""

import json
import os
from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context, UsageError
from sealane.cli.install import check_ours, program, read, remove, write, write_unless_foreign
from sealane.cli.parser import describe
from sealane.cli.registry import Verb

BIN_DIR = "/opt/cni/bin"
CONF_DIR = "/etc/cni/net.d"
EXECUTABLE = "sealane"
LOOPBACK = "loopback"
"""Containerd and CRI-O ask for a plugin of this name for each pod."""
CONFLIST = "10-sealane.conflist"
NETWORK = "pods"
MARK = "# CNI plugin of sealane, written by `sealane cni install`."
LOOPBACK_MARK = "# CNI plugin loopback of sealane, written by `sealane cni install`."
CAPABILITIES = ("aliases", "bandwidth", "cgroupPath", "dns", "ipRanges", "ips", "mac", "portMappings")


def configure_install(parser: ArgumentParser) -> None:
    describe(
        parser,
        "The executable asks the daemon at --socket. Installing again changes nothing; a conflist that differs is\n"
        "kept unless --replace is given. A plugin `loopback`, which containerd and CRI-O need, is written too, unless\n"
        "there is one.",
        ["sealane cni install", "sealane cni install --subnet 10.88.0.0/16 --subnet fd00:88::/64"],
    )
    _add_directories(parser)
    parser.add_argument(
        "--name", metavar="NETWORK", default=NETWORK, help=f"of the network (default: {NETWORK})"
    )
    parser.add_argument(
        "--subnet",
        metavar="PREFIX",
        action="append",
        default=[],
        help="of the network, one a family (default: from the daemon's pools)",
    )
    parser.add_argument(
        "--resolver",
        action="store_true",
        help="answer names at the network's gateways: for podman and nerdctl, not for a cluster with DNS of its own",
    )
    parser.add_argument("--replace", action="store_true", help="write over a conflist that differs")


def install(context: Context, arguments: Namespace) -> int:
    executable = os.path.join(arguments.bin_dir, EXECUTABLE)
    conflist = os.path.join(arguments.conf_dir, CONFLIST)
    config = _conflist(arguments.name, arguments.subnet, resolver=arguments.resolver)
    there = read(conflist)
    if there not in {None, config} and not arguments.replace:
        raise UsageError(
            f"{conflist} is there already, and differs",
            field="--replace",
            hint="give --replace to write over it, or keep it and leave these options out",
        )
    script = program("cni", MARK, context.socket)
    check_ours(executable, MARK, "--bin-dir")
    # The executables first: from the moment that the conflist is there runtimes call them.
    write(context, executable, script, 0o755)
    loopback = os.path.join(arguments.bin_dir, LOOPBACK)
    write_unless_foreign(context, loopback, program("loopback", LOOPBACK_MARK, None), LOOPBACK_MARK)
    write(context, conflist, config, 0o644)
    return 0


def configure_uninstall(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Removes what `install` wrote, a conflist only if nobody has changed it since. Pods and their networks stay.",
        ["sealane cni uninstall"],
    )
    _add_directories(parser)


def uninstall(context: Context, arguments: Namespace) -> int:
    """The conflist first: without its executables it would fail every pod."""
    conflist = os.path.join(arguments.conf_dir, CONFLIST)
    executable = os.path.join(arguments.bin_dir, EXECUTABLE)
    remove(context, conflist, _is_plain, "cni")
    remove(context, executable, lambda text: MARK in text, "cni")
    remove(context, os.path.join(arguments.bin_dir, LOOPBACK), lambda text: LOOPBACK_MARK in text, "cni")
    return 0


def _add_directories(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--bin-dir",
        metavar="DIR",
        default=BIN_DIR,
        help=f"where runtimes look for plugins (default: {BIN_DIR})",
    )
    parser.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=CONF_DIR,
        help=f"where they look for networks (default: {CONF_DIR})",
    )


def _conflist(name: str, subnets: list[str], *, resolver: bool = False) -> str:
    """`cniVersion` is what runtimes of before 2024 read; later ones take the highest of `cniVersions` that they know."""
    plugin: dict[str, object] = {"type": EXECUTABLE, "capabilities": dict.fromkeys(CAPABILITIES, True)}
    if resolver:
        plugin["resolver"] = True
    if subnets:
        plugin["ipam"] = {"type": EXECUTABLE, "ranges": [[{"subnet": subnet}] for subnet in subnets]}
    document = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": name, "plugins": [plugin]}
    return f"{json.dumps(document, indent=2)}\n"


def _is_plain(text: str) -> bool:
    """Whether install writes just this for the network's name, subnets and resolver."""
    try:
        document = json.loads(text)
        plugin = document["plugins"][0]
        ranges = plugin.get("ipam", {}).get("ranges", [])
        subnets = [alternatives[0]["subnet"] for alternatives in ranges]
        return text == _conflist(document["name"], subnets, resolver=plugin.get("resolver") is True)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False


VERBS = {"install": Verb(configure_install, install), "uninstall": Verb(configure_uninstall, uninstall)}
