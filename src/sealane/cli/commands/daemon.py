"""`sealane daemon`: hands over to sealane.daemon."""

import os
from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.parser import describe
from sealane.cli.registry import Verb

STATE = "/var/lib/sealane"
RUN = "/run/sealane"
PLUGIN_SOCKET = "/run/docker/plugins/sealane.sock"


def configure(parser: ArgumentParser) -> None:
    describe(
        parser,
        "It tells systemd when it is ready (sd_notify) and takes a listening socket from it (socket activation).\n"
        "SIGTERM ends it; networks and containers stay as they are, and the next daemon takes them over.",
        ["sealane daemon", "sealane daemon --state ./state --run-dir ./run --socket ./run/s.sock"],
    )
    parser.add_argument(
        "--state", metavar="DIR", default=STATE, help=f"persistent state directory (default: {STATE})"
    )
    parser.add_argument("--run-dir", metavar="DIR", default=RUN, help=f"what does not (default: {RUN})")
    parser.add_argument(
        "--docker-plugin-socket",
        metavar="PATH",
        nargs="?",
        const=PLUGIN_SOCKET,
        default=os.environ.get("SEALANE_DOCKER_PLUGIN_SOCKET", ""),
        help=f"be Docker's network and IPAM driver `sealane` there (default of PATH: {PLUGIN_SOCKET}; without the "
        "option: $SEALANE_DOCKER_PLUGIN_SOCKET, or not at all)",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        default="",
        help="where intent is kept: sqlite:///DIRECTORY or memory:// (default: the state directory)",
    )
    parser.add_argument("--no-dns", action="store_true", help="answer no names")
    parser.add_argument(
        "--oci-runtime", metavar="PROGRAM", default="", help="(default: runc or crun, whichever is there)"
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="(default: info)",
    )
    parser.add_argument(
        "--paranoid",
        action="store_true",
        help="check every incremental result against a full one; slow, for tests and bug hunts",
    )


def daemon(context: Context, arguments: Namespace) -> int:
    from sealane.daemon.config import Config
    from sealane.daemon.main import run

    return run(
        Config(
            state_dir=arguments.state,
            run_dir=arguments.run_dir,
            socket=context.socket,
            docker_plugin_socket=arguments.docker_plugin_socket,
            store=arguments.store,
            log_level=arguments.log_level,
            paranoid=arguments.paranoid,
            dns=not arguments.no_dns,
            oci_runtime=arguments.oci_runtime,
        )
    )


VERBS = {"daemon": Verb(configure, daemon)}
