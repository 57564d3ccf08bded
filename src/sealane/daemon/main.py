"""`sealane daemon`: in the foreground, until SIGTERM or SIGINT. Tells systemd when it is ready (sd_notify(3)), and
takes its socket from it if it is handed one (sd_listen_fds(3))."""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import resource
import signal
import socket
import sys

from sealane.api.routes import Routes
from sealane.api.server import ApiServer
from sealane.daemon.config import Config, ConfigError
from sealane.daemon.service import Service
from sealane.daemon.threads import workers
from sealane.http.listen import named_sockets
from sealane.integrations.cnm.integration import Integration
from sealane.integrations.cnm.keeping import KeptSocket, dismiss
from sealane.linux.facts import UnsupportedKernelError
from sealane.linux.kernel import TakenError

log = logging.getLogger("sealane")

GC_THRESHOLD = 50_000
"""Objects made before the youngest are looked through: records hold no cycles, and a look is a pause in some attach."""

DOCKER = "docker"
"""FileDescriptorName= of the socket that Docker's plugin protocol is spoken on (packaging/systemd)."""

EXIT_FAILED = 1
EXIT_USAGE = 2


def run(config: Config) -> int:
    """The daemon's whole life; its exit code."""
    with contextlib.suppress(RuntimeError):  # Who closes our stderr wants to be told nothing.
        faulthandler.enable()
    logging.basicConfig(level=config.log_level.upper(), format="%(levelname)s %(message)s", stream=sys.stderr)
    # Containers inherit it. What is private lies in directories of mode 0700, and the socket's mode is set on it.
    os.umask(0o022)
    _raise_descriptor_limit()
    # Not for our children: runc takes it for its container's, and waits until that says READY=1 (notify_socket.go).
    manager = os.environ.pop("NOTIFY_SOCKET", "")
    try:
        config.store_directory()
        return asyncio.run(_serve(config, manager))
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_USAGE
    except (OSError, UnsupportedKernelError, TakenError) as error:
        log.error("%s", error)
        return EXIT_FAILED


def _raise_descriptor_limit() -> None:
    """To what we may have: a listen address takes two sockets, a forwarded question one, a client one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config: Config, manager: str) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(workers())
    # Handed over by the service manager, a client's connect never fails, not even while we are restarted.
    named = named_sockets(os.environ, os.getpid())
    for_docker = [sock for name, sock in named if name == DOCKER]
    kept = _kept_for_docker(for_docker, config)
    service = Service(config, loop)
    service.start()
    server = ApiServer(service)
    integration = Integration(service.engine, loop)

    def route_anew() -> None:
        server.routes = Routes(service)
        integration.serve(service.engine)

    service.rebuilt = route_anew
    stopped = _told_to_stop(loop)
    try:
        handed = [sock for name, sock in named if name != DOCKER]
        places = [str(sock.getsockname()) for sock in handed] or [config.socket]
        await server.start(handed or config.socket)
        if kept is not None:
            await integration.start([kept.open()])
            kept.follow(loop)
        elif for_docker:
            await integration.start(for_docker)
        # Records live as long as the daemon: a full collection over thousands of them is a pause for nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)
        notify(manager, "READY=1")
        log.info("ready on %s", ", ".join(places))
        await stopped.wait()
        notify(manager, "STOPPING=1")
    finally:
        await integration.stop()
        if kept is not None:
            kept.close()
        await server.stop()
        service.stop()
    return 0


def _kept_for_docker(handed: list[socket.socket], config: Config) -> KeptSocket | None:
    """A socket of our own, which a stand-in keeps when we are away; the service manager keeps its own."""
    if handed or not config.docker_plugin_socket:
        dismiss(config.run_dir)
        return None
    kept = KeptSocket(config.docker_plugin_socket, config.run_dir)
    kept.reserve()
    return kept


def _told_to_stop(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """From now on a signal ends the daemon in good order, so: before anybody hears that it is ready."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def notify(manager: str, state: str) -> None:
    """sd_notify(3), to the socket of that path or, with an @, abstract name; nothing where there is no manager."""
    if not manager:
        return
    address = "\0" + manager[1:] if manager.startswith("@") else manager
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)
