"""The daemon's configuration."""

import os
import re

import msgspec

STATE_DIR = "/var/lib/sealane"
RUN_DIR = "/run/sealane"
SOCKET = "/run/sealane/sealane.sock"

_STORE = re.compile(r"(sqlite|memory)://(.*)")


class ConfigError(ValueError):
    """An option cannot be used as given; the text names it."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    state_dir: str = STATE_DIR
    """Outlives reboots: the store, containers' specs and logs."""
    run_dir: str = RUN_DIR
    """Should be a tmpfs: pinned namespaces, the socket program's pins."""
    socket: str = SOCKET
    docker_plugin_socket: str = ""
    """Where Docker finds its driver `sealane`; empty: it finds none, unless the service manager hands a socket over."""
    store: str = ""
    """`sqlite:///DIRECTORY`; empty: the state directory. `memory://` forgets everything at the end."""
    log_level: str = "info"
    paranoid: bool = False
    """Check every incremental compilation against a full one."""
    dns: bool = True
    dns_search: str = ""
    oci_runtime: str = ""

    def own_places(self) -> tuple[str, ...]:
        """Whatever gives power over the engine to who can reach it."""
        places = (
            self.state_dir, self.run_dir, self.socket, self.docker_plugin_socket, self.store_directory(),
        )  # fmt: skip
        return tuple(os.path.abspath(place) for place in places if place)

    def store_directory(self) -> str | None:
        """Where the database is; None for a store in memory. Raises ConfigError."""
        if not self.store:
            return os.path.abspath(self.state_dir)
        match = _STORE.fullmatch(self.store)
        if match is None:
            raise ConfigError(f"--store {self.store!r}: sqlite:///DIRECTORY or memory:// is meant")
        if match[1] == "memory":
            return None
        if not match[2].startswith("/"):
            raise ConfigError(
                f"--store {self.store!r}: an absolute path is needed, e.g. sqlite:////var/lib/sealane"
            )
        return match[2]
