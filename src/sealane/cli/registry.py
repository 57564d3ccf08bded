"""Every command: its place, one line of help, and the module that has the rest. No module is loaded for a mere list."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from sealane.cli.context import Context


class Verb(NamedTuple):
    """What a command's module provides."""

    configure: "Callable[[ArgumentParser], None]"
    """Adds description, arguments and examples."""
    run: "Callable[[Context, Namespace], int]"
    """The exit code. Raises UsageError and the client's errors, which main renders."""


class Command(NamedTuple):
    path: tuple[str, ...]
    summary: str
    module: str
    """Below sealane.cli.commands; its VERBS are keyed by the last word of the path."""

    def load(self) -> Verb:
        verbs: dict[str, Verb] = import_module(f"sealane.cli.commands.{self.module}").VERBS
        return verbs[self.path[-1]]


GROUPS = {
    "network": "Manage networks",
    "endpoint": "Show endpoints: the places of sandboxes on networks",
    "sandbox": "Make, show and remove sandboxes: network namespaces that endpoints live in",
    "cni": "Be a network plugin of Kubernetes, containerd and podman",
    "podman": "Replace netavark as podman's network backend",
    "image": "Unpack, show and remove images that containers are made of",
    "lab": "Run a cluster of hosts on this machine, made of namespaces",
    "oci": "Be a hook of OCI runtimes: runc, crun, podman, CRI-O",
}

COMMANDS = (
    Command(("daemon",), "Run the daemon in the foreground", "daemon"),
    Command(("up",), "Start the services of a compose file", "up"),
    Command(("down",), "Remove what `up` made", "up"),
    Command(("plan",), "Show what apply or delete would change in the kernel, line by line", "project"),
    Command(("apply",), "Apply a compose file or manifest", "project"),
    Command(("delete",), "Take away what a compose file or a manifest says", "project"),
    Command(("network", "create"), "Make a network", "network"),
    Command(("network", "ls"), "List networks", "network"),
    Command(("network", "inspect"), "Show networks as JSON", "network"),
    Command(("network", "rm"), "Remove networks", "network"),
    Command(("network", "prune"), "Remove all networks that nobody is on", "network"),
    Command(("endpoint", "ls"), "List endpoints", "endpoint"),
    Command(("endpoint", "inspect"), "Show endpoints as JSON", "endpoint"),
    Command(("attach",), "Join a sandbox, namespace or process to a network", "attach"),
    Command(("detach",), "Detach a sandbox from networks", "attach"),
    Command(("sandbox", "create"), "Make a sandbox, or give an existing namespace a name", "sandbox"),
    Command(("sandbox", "ls"), "List sandboxes", "sandbox"),
    Command(("sandbox", "inspect"), "Show sandboxes as JSON", "sandbox"),
    Command(("sandbox", "rm"), "Remove sandboxes", "sandbox"),
    Command(("explain",), "Predict a packet's path and verdict", "explain"),
    Command(("sockets",), "List sockets in sandboxes, and how their connections fare", "sockets"),
    Command(("check",), "Send real packets, and compare with what explain says", "check"),
    Command(
        ("trace",), "Follow real packets through the kernel, and compare with what explain says", "trace"
    ),
    Command(("doctor",), "Look for the known causes of trouble, and say how to hint them", "doctor"),
    Command(("capture",), "Record the frames that pass endpoints, in pcapng", "capture"),
    Command(("run",), "Run a command in a new container", "run"),
    Command(("image", "load"), "Unpack an image", "image"),
    Command(("image", "ls"), "List the images that are unpacked here", "image"),
    Command(("image", "rm"), "Remove images that no container is made of", "image"),
    Command(("image", "prune"), "Remove all images that no container is made of", "image"),
    Command(("exec",), "Run a command in a running container", "exec"),
    Command(("ps",), "List containers", "containers"),
    Command(("inspect",), "Show containers and their requests as JSON", "containers"),
    Command(("logs",), "Show the output of a container", "logs"),
    Command(("start",), "Start containers that have ended", "containers"),
    Command(("stop",), "Stop containers", "containers"),
    Command(("restart",), "Stop containers and start them again", "containers"),
    Command(("wait",), "Wait until containers have ended, and print their exit codes", "containers"),
    Command(("port",), "List the ports that a container publishes", "port"),
    Command(("kill",), "Send a signal to containers", "containers"),
    Command(("rm",), "Remove containers", "containers"),
    Command(("status",), "Show the state of the daemon and what it has to say", "daemon_state"),
    Command(("events",), "Show what has happened", "daemon_state"),
    Command(("gc",), "Release dead sandboxes and delete unused kernel objects", "daemon_state"),
    Command(("audit",), "Compare what should be with what is in the kernel; changes nothing", "daemon_state"),
    Command(("version",), "Show versions", "daemon_state"),
    Command(("cni", "install"), "Put the CNI executable and a conflist in place", "cni"),
    Command(("cni", "uninstall"), "Remove them", "cni"),
    Command(("podman", "install"), "Put the executable and podman's setting in place", "podman"),
    Command(("podman", "uninstall"), "Remove them", "podman"),
    Command(("oci", "install"), "Put the OCI hook in place", "oci"),
    Command(("oci", "uninstall"), "Remove it", "oci"),
    Command(("oci", "hooks"), "Print the hooks that a config.json needs", "oci"),
    Command(("lab", "up"), "Start the hosts and etcd of a lab file", "lab"),
    Command(("lab", "down"), "End a lab and remove everything of it", "lab"),
    Command(("lab", "ls"), "List labs", "lab"),
    Command(("lab", "status"), "Show the hosts, etcd members and cuts of a lab", "lab"),
    Command(("lab", "exec"), "Run a command on a host of a lab", "lab_exec"),
    Command(("lab", "shell"), "Open a shell on a host of a lab", "lab_exec"),
    Command(("lab", "cut"), "Drop all packets of a host or between two", "lab"),
    Command(("lab", "heal"), "Let packets through again", "lab"),
    Command(("lab", "kill"), "Send a signal to a host's daemon or an etcd member", "lab"),
    Command(("lab", "start"), "Start daemons and etcd members that have ended", "lab"),
    Command(("lab", "pause"), "Stop the clock of daemons and etcd members (SIGSTOP)", "lab"),
    Command(("lab", "resume"), "Let paused daemons and etcd members go on", "lab"),
    Command(("completion",), "Print a completion script for a shell", "completion"),
)
