"""The lab's first process: it holds all namespaces, starts the programs, and answers the command line.

It is process 1 of the lab's pid namespace, so with it the kernel ends everything in the lab (pid_namespaces(7)). One
thread, no waiting: whoever asks for a start asks for the status until it is reached.
"""

import contextlib
import errno
import os
import selectors
import signal
import socket
import sys

import msgspec

from sealane.containers import cgroups
from sealane.lab.folder import Folder, LabError
from sealane.lab.messages import MAX_BYTES, REQUEST, Reply, Request, Started
from sealane.lab.namespaces import Held, hold_own, isolate, make_node
from sealane.lab.network import lay_out, run
from sealane.lab.plan import UNDERLAY, Link, Plan
from sealane.lab.programs import Program, bind_below, missing_programs
from sealane.lab.wiring import cut_elements, hosts_file

SOCKET_NAME = "holder.sock"
CLIENTS_MAX = 64
_CPUSET = ("cpuset.cpus", "cpuset.mems")


def hold(folder: Folder, watch: int) -> None:
    """The holder's whole life. `watch` is readable when the warden has ended: then this is the end of the lab, too.
    The caller has made this process the first of a pid namespace."""
    try:
        isolate()
        holder = Holder(folder, folder.read_plan(), watch)
    except (LabError, OSError) as error:
        _tell(Started(error=str(error), hint=error.hint if isinstance(error, LabError) else ""))
        return
    _tell(Started())
    holder.serve()


def _tell(started: Started) -> None:
    """To `lab up`, which reads until the end."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), msgspec.json.encode(started))
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class Holder:
    def __init__(self, folder: Folder, plan: Plan, watch: int) -> None:
        """Lay the lab out. Raises LabError and OSError."""
        self._folder, self._plan, self._watch = folder, plan, watch
        if missing := missing_programs(plan.nodes):
            raise LabError(f"not installed: {', '.join(missing)}", f"apt-get install {' '.join(missing)}")
        self._held = {UNDERLAY: hold_own()}
        self._cut: set[Link] = set()
        self._programs: dict[str, Program] = {}
        self._is_over = False
        self._are_daemons_begun = False
        self._selector = selectors.DefaultSelector()
        self._clients = 0
        found = cgroups.detect()
        nodes: dict[str, Held] = {}
        for node in plan.nodes:
            own = folder.node(node.name)
            os.makedirs(own, mode=0o700, exist_ok=True)
            with open(f"{own}/hosts", "w", encoding="ascii") as file:
                file.write(hosts_file(plan))
            nodes[node.name] = make_node(node.name, own, _make_groups(found, folder.group(), node.name))
        lay_out(plan, nodes)
        self._held |= nodes
        for node in plan.nodes:
            self._programs[node.name] = Program(node, folder, nodes[node.name])

    # --- the loop

    def serve(self) -> None:
        wakeup, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # Process 1 gets no signal that it has no handler for (pid_namespaces(7)).
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        bind_below(listener, self._folder.path, SOCKET_NAME)
        listener.listen(CLIENTS_MAX)
        register = self._selector.register
        register(wakeup, selectors.EVENT_READ, lambda: os.read(wakeup, 4096))
        register(self._watch, selectors.EVENT_READ, self._end)
        register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        for program in self._programs.values():
            register(program.notify, selectors.EVENT_READ, program.heard)
            if program.node.kind == "etcd":
                self._start(program)
        while not self._is_over:
            if not self._are_daemons_begun and self._is_cluster_ready():
                self._are_daemons_begun = True
                for program in self._programs.values():
                    if program.state == "stopped":
                        self._start(program)
            for key, _ in self._selector.select():
                key.data()
            self._reap()

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._end()

    def _end(self) -> None:
        self._is_over = True

    def _is_cluster_ready(self) -> bool:
        """Daemons begin when etcd has answered, or will not: then they say so themselves."""
        return all(
            program.state not in {"stopped", "starting"}
            for program in self._programs.values()
            if program.node.kind == "etcd"
        )

    def _reap(self) -> None:
        """Children, and what lost its parent in the lab."""
        by_pid = {program.pid: program for program in self._programs.values() if program.pid}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] in by_pid:
                    by_pid[ended[0]].ended(os.waitstatus_to_exitcode(ended[1]))

    def _start(self, program: Program) -> None:
        try:
            program.start(os.environ)
        except OSError as error:
            sys.stderr.write(f"{program.node.name}: {error}\n")
            sys.stderr.flush()
            program.ended(127 if error.errno == errno.ENOENT else 126)

    # --- requests

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            if self._clients >= CLIENTS_MAX:
                client.close()
                return
            client.setblocking(False)
            self._clients += 1
            self._selector.register(client, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: socket.socket) -> None:
        """One packet, one answer; a client may ask again on the same connection."""
        try:
            packet = client.recv(MAX_BYTES)
            if not packet:
                raise ConnectionResetError
            reply, descriptors = self._answer(REQUEST.decode(packet))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_BYTES)
            socket.send_fds(client, [msgspec.json.encode(reply)], descriptors)
        except (OSError, msgspec.MsgspecError):
            self._selector.unregister(client)
            client.close()
            self._clients -= 1

    def _answer(self, request: Request) -> tuple[Reply, list[int]]:
        try:
            match request.verb:
                case "start" | "kill" | "pause" | "resume":
                    self._act(request)
                case "cut":
                    self._set_cut(self._cut | set(request.links))
                case "heal":
                    self._set_cut(self._cut - set(request.links) if request.links else set())
                case "enter":
                    return Reply(), self._enterable(request.node)
                case "down":
                    self._end()
                case "status":
                    pass
        except (LabError, OSError) as error:
            hint = error.hint if isinstance(error, LabError) else ""
            return Reply(error=str(error), hint=hint), []
        nodes = tuple(program.status() for program in self._programs.values())
        return Reply(nodes=nodes, cut=tuple(sorted(self._cut))), []

    def _act(self, request: Request) -> None:
        """Idempotent: what is in the state already stays in it."""
        program = self._program(request.node)
        name = program.node.name
        runs = program.pid != 0
        if request.verb == "start":
            if program.state == "paused":
                raise LabError(f"{name} is paused", f"sealane lab resume {name}")
            if not runs:
                self._start(program)
            return
        if not runs:
            if request.verb == "kill":
                return
            raise LabError(f"{name} is not running", f"sealane lab start {name}")
        signals = {"kill": request.signal, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}
        program.send(signals[request.verb])

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            raise LabError(f"no host or etcd member {name!r}", f"use one of: {', '.join(self._programs)}")
        return self._programs[name]

    def _set_cut(self, links: set[Link]) -> None:
        run(["nft", "-f", "-"], cut_elements(self._plan, links))
        self._cut = links

    def _enterable(self, name: str) -> list[int]:
        """As `namespaces.Enterable` has them. Each is opened anew by who receives it, so ours may be sent."""
        if name not in self._held:
            raise LabError(f"no host or etcd member {name!r}", f"use one of: {', '.join(self._held)}")
        held = self._held[name]
        return [_own("user"), _own("pid"), held.net, held.uts, held.mount]


_opened: dict[str, int] = {}


def _own(kind: str) -> int:
    if kind not in _opened:
        _opened[kind] = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    return _opened[kind]


def _make_groups(found: cgroups.Cgroups, group: str, node: str) -> dict[str, str]:
    """A control group per hierarchy for what the node's daemon starts, by the hierarchy's mount point. Empty where they
    cannot be made, as in a user namespace: then its daemon runs no containers."""
    made: dict[str, str] = {}
    try:
        for folder in sorted(set(found.folders.values())):
            below = folder
            for part in (*group.strip("/").split("/"), node):
                above, below = below, f"{below}/{part}"
                os.makedirs(below, exist_ok=True)
                _inherit(above, below)
            made[folder] = below
    except OSError:
        return {}
    return made


def _inherit(above: str, below: str) -> None:
    """Version 2 hands controllers down one level at a time; a cpuset of version 1 begins empty, and takes no process then."""
    with contextlib.suppress(OSError):
        with open(f"{above}/cgroup.controllers", encoding="ascii") as file:
            enabled = " ".join(f"+{name}" for name in file.read().split())
        with open(f"{above}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write(enabled)
    for name in _CPUSET:
        with contextlib.suppress(OSError), open(f"{above}/{name}", encoding="ascii") as file:
            value = file.read()
            with open(f"{below}/{name}", "r+", encoding="ascii") as own:
                own.write(value)
