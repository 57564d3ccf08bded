"""`sealane podman …`: puts the netavark front end where podman looks for netavark. Asks nothing of the daemon."""

import json
import os
from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.install import check_ours, program, remove, write
from sealane.cli.parser import describe
from sealane.cli.registry import Verb

BIN_DIR = "/usr/libexec/sealane/podman"
CONF_DIR = "/etc/containers/containers.conf.d"
EXECUTABLE = "netavark"
"""Podman finds it by this name alone."""
CONFIG = "50-sealane.conf"
MARK = "# Networks of podman by sealane, written by `sealane podman install`."
HELPERS = (
    "/usr/local/libexec/podman",
    "/usr/local/lib/podman",
    "/usr/libexec/podman",
    "/usr/lib/podman",
)
"""Where podman looks by itself (containers.conf(5), helper_binaries_dir): it has other helpers there."""


def configure_install(parser: ArgumentParser) -> None:
    describe(
        parser,
        "From then on podman (4.x and later, as root) asks the daemon at --socket for its networks. Containers that run\n"
        "keep the networks they have until they are restarted: stop them first. Installing again changes nothing.",
        ["sealane podman install", "sealane podman install --bin-dir /opt/sealane/podman"],
    )
    _add_directories(parser)


def install(context: Context, arguments: Namespace) -> int:
    executable = os.path.join(arguments.bin_dir, EXECUTABLE)
    config = os.path.join(arguments.conf_dir, CONFIG)
    script = program("netavark", MARK, context.socket)
    check_ours(executable, MARK, "--bin-dir")
    check_ours(config, MARK, "--conf-dir")
    # The executable first: from the moment that the configuration is there podman calls it.
    write(context, executable, script, 0o755)
    write(context, config, _config(os.path.abspath(arguments.bin_dir)), 0o644)
    return 0


def configure_uninstall(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Podman uses its own netavark again. Remove its containers first: they would keep what sealane gave them.",
        ["sealane podman uninstall"],
    )
    _add_directories(parser)


def uninstall(context: Context, arguments: Namespace) -> int:
    """The configuration first: without the executable podman would start nothing."""
    for path in (
        os.path.join(arguments.conf_dir, CONFIG),
        os.path.join(arguments.bin_dir, EXECUTABLE),
    ):
        remove(context, path, lambda text: MARK in text, "podman")
    return 0


def _add_directories(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--bin-dir", metavar="DIR", default=BIN_DIR, help=f"of the executable (default: {BIN_DIR})"
    )
    parser.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=CONF_DIR,
        help=f"where podman looks for settings (default: {CONF_DIR})",
    )


def _config(bin_dir: str) -> str:
    """Of two files that set `helper_binaries_dir` podman takes the later one's, whole."""
    directories = json.dumps([bin_dir, *HELPERS])
    return (
        f'{MARK}\n[network]\nnetwork_backend = "netavark"\n\n[engine]\nhelper_binaries_dir = {directories}\n'
    )


VERBS = {"install": Verb(configure_install, install), "uninstall": Verb(configure_uninstall, uninstall)}
