"""The engines of this scene, each with stores of its own, and what they run: a page with its maker's name on port 80."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from examples.kit.screen import Screen
from examples.kit.trouble import DemoError

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
START_TIMEOUT_S = 40.0
COMMAND_TIMEOUT_S = 60.0
# Podman's own limits would be above those of the demo.
PODMAN_SETTINGS = """[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=512:512", "nproc=512:512"]
"""
RUNTIME = "/usr/sbin/runc"

# Static busybox has no resolver of the C library's, so a name is looked up by `nslookup`; every address has to answer.
FETCH = """
for address in $(busybox nslookup "$1" $2 2>/dev/null | busybox sed '1,/^Name/{/^Name/!d}' | busybox sed -n 's/^Address.*: //p'); do
    printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 "$address" 80 | busybox tail -n 1
done
"""
FAMILIES = 2


def serve(name: str) -> tuple[str, ...]:
    script = f"echo {name} >/tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"
    return ("busybox", "sh", "-c", script)


class Shell:
    """Commands before the audience. `environ` goes beside ours."""

    def __init__(self, screen: Screen, environ: dict[str, str] | None = None) -> None:
        self._screen = screen
        self._environ = {**os.environ, **(environ or {})}

    def show(self, *argv: str, shown: str = "", text: str = "") -> str:
        """Run it and show it, or what is `shown` in its place. DemoError unless it succeeded."""
        self._screen.prompt(shown or shlex.join(argv))
        return self.run(*argv, text=text)

    def run(
        self, *argv: str, text: str = "", check: bool = True, environ: dict[str, str] | None = None
    ) -> str:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            env={**self._environ, **(environ or {})},
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise DemoError(f"`{shlex.join(argv)}` failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()


class Door(ABC):
    """A place on the network, and how it is made and taken away."""

    name: str
    """In DNS."""
    port: int
    """Of the host, that leads to its page."""

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def inside(self, *command: str) -> str:
        """What a command prints there, whatever its exit code."""

    def fetch(self, name: str) -> list[str]:
        """What the pages of a name say, one for each of its addresses, asked as this place asks for names."""
        return self.inside("busybox", "sh", "-c", FETCH, "sh", name, self.resolver()).split()

    def resolver(self) -> str:
        """Empty where its own resolv.conf says it."""
        return ""

    def pings(self, address: str, count: int) -> int:
        """How many of so many pings, ten a second, are answered."""
        said = self.inside("busybox", "ping", "-c", str(count), "-i", "0.1", "-W", "1", address)
        found = next(
            (line for line in said.splitlines() if "packets received" in line), "0, 0 packets received"
        )
        return int(found.split(", ")[1].split()[0])


class Docker(Door):
    """dockerd of one's own. It makes the network, and does so first: a network of Docker's is Docker's to make."""

    name, port = "docker-box", 8081

    def __init__(self, screen: Screen, folder: str, network: str, subnets: Sequence[str]) -> None:
        self._folder, self._network, self._subnets = folder, network, subnets
        self._socket = f"{folder}/docker.sock"
        self._shell = Shell(screen, {"DOCKER_HOST": f"unix://{self._socket}"})
        self._gateway = str(subnets[0].partition("/")[0][:-1] + "1")

    def start(self) -> None:
        roots = ("--data-root", f"{self._folder}/docker/data", "--exec-root", f"{self._folder}/docker/exec")
        where = ("--host", f"unix://{self._socket}", "--pidfile", f"{self._folder}/docker.pid")
        with open(f"{self._folder}/docker.json", "w", encoding="utf-8") as config:
            config.write("{}")
        with open(f"{self._folder}/docker.log", "ab") as log:
            daemon = subprocess.Popen(
                ["/usr/sbin/dockerd", *where, *roots, "--storage-driver", "vfs", "--config-file", f"{self._folder}/docker.json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        begun = time.monotonic()
        while not self._shell.run("docker", "version", "--format", "{{.Server.Version}}", check=False):
            if daemon.poll() is not None or time.monotonic() - begun > START_TIMEOUT_S:
                with open(f"{self._folder}/docker.log", encoding="utf-8", errors="replace") as log_file:
                    raise DemoError(f"dockerd did not start: {log_file.read()[-1000:]}")
            time.sleep(0.1)

    def load(self, root: str) -> None:
        self._shell.run("sh", "-c", f"tar -C {root} -c . | docker import - busybox")

    def make_network(self) -> None:
        subnets = [word for subnet in self._subnets for word in ("--subnet", subnet)]
        driver = ("-d", "sealane", "--ipam-driver", "sealane", "--ipv6", *subnets)
        self._shell.show(
            "docker", "network", "create", *driver, "-o", f"sealane.name={self._network}", self._network
        )

    def remove_network(self) -> None:
        self._shell.show("docker", "network", "rm", self._network)

    def open(self) -> None:
        place = f"name={self._network},driver-opt=sealane.name={self.name}"
        self._shell.show(
            "docker", "run", "-d", "--init=false", "--name", self.name, "--network", place,
            "--dns", self._gateway, "-p", f"{self.port}:80", "busybox", *serve(self.name),
            shown=f"docker run -d --name {self.name} --network {place} --dns {self._gateway} -p {self.port}:80 busybox …",
        )  # fmt: skip

    def close(self) -> None:
        self._shell.show("docker", "rm", "-f", self.name)

    def inside(self, *command: str) -> str:
        return self._shell.run("docker", "exec", self.name, *command, check=False)


class Podman(Door):
    name, port = "podman-box", 8082

    def __init__(self, screen: Screen, folder: str, network: str, root: str) -> None:
        self._folder, self._network, self._root = folder, network, root
        self._config = f"{folder}/containers.conf"
        self._screen = screen
        self._shell = Shell(screen, {"CONTAINERS_CONF": self._config})

    def install(self, sealane: Any) -> None:
        sealane.show(
            "podman",
            "install",
            "--bin-dir",
            f"{self._folder}/podman-bin",
            "--conf-dir",
            f"{self._folder}/conf.d",
        )
        with open(f"{self._folder}/conf.d/50-sealane.conf", encoding="utf-8") as file:
            written = file.read()
        networks = f'[network]\nnetwork_config_dir = "{self._folder}/podman/networks"\n'
        with open(self._config, "w", encoding="utf-8") as file:
            # One file for what lies in three directories of a machine.
            file.write(_merged(PODMAN_SETTINGS, networks, written))

    def _podman(self, *words: str, shown: str = "", check: bool = True) -> str:
        places = (
            f"--root={self._folder}/podman",
            f"--runroot={self._folder}/podman-run",
            f"--tmpdir={self._folder}/podman-tmp",
        )
        argv = ("podman", *places, "--storage-driver=vfs", f"--runtime={RUNTIME}", *words)
        return self._shell.show(*argv, shown=shown) if shown else self._shell.run(*argv, check=check)

    def open(self) -> None:
        create = ("network", "create", "--ipam-driver", "none", self._network)
        self._podman(*create, shown=f"podman {shlex.join(create)}")
        run = (
            "run",
            "-d",
            "--name",
            self.name,
            "--network",
            self._network,
            "-p",
            f"{self.port}:80",
            # Podman gives no container this by itself from version 5 on, and `ping` asks for it.
            "--cap-add=NET_RAW",
            "--rootfs",
        )
        self._podman(*run, self._root, *serve(self.name), shown=f"podman {shlex.join(run)} ROOT …")

    def close(self) -> None:
        for words in (("rm", "-f", "-t", "0", self.name), ("network", "rm", self._network)):
            self._podman(*words, shown=f"podman {shlex.join(words)}")

    def inside(self, *command: str) -> str:
        return self._podman("exec", self.name, *command, check=False)


class Namespace(Door):
    """Something that lives in a network namespace, on the host's own file system."""

    def __init__(self, screen: Screen, folder: str, network: str, gateway: str) -> None:
        self._screen, self._folder, self._network, self._gateway = screen, folder, network, gateway
        self._shell = Shell(screen)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def netns(self) -> str: ...

    def resolver(self) -> str:
        return self._gateway

    def inside(self, *command: str) -> str:
        return self._shell.run("nsenter", f"--net={self.netns}", "--", *command, check=False)

    def _start(self, *before: str) -> None:
        quiet = subprocess.DEVNULL
        page = f"{self._folder}/{self.name}"
        os.makedirs(page, exist_ok=True)
        with open(f"{page}/index.html", "w", encoding="utf-8") as file:
            file.write(f"{self.name}\n")
        server = ("busybox", "httpd", "-f", "-p", "80", "-h", page)
        self._process = subprocess.Popen([*before, *server], stdin=quiet, stdout=quiet, stderr=quiet)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Pod(Namespace):
    """A sandbox by CNI, as a kubelet's runtime makes one: a namespace, and the executable with its configuration."""

    name, port = "pod-box", 8083

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.name}"

    def install(self, sealane: Any) -> None:
        sealane.show(
            "cni", "install", "--bin-dir", f"{self._folder}/cni-bin", "--conf-dir", f"{self._folder}/net.d"
        )

    def _call(self, verb: str) -> None:
        mapping = {"hostPort": self.port, "containerPort": 80, "protocol": "tcp"}
        config = {
            "cniVersion": "1.0.0",
            "name": self._network,
            "type": "sealane",
            "runtimeConfig": {"portMappings": [mapping]},
        }
        environ = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "0123456789abcdef",
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{self._folder}/cni-bin",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={self.name}",
        }
        self._screen.prompt(
            f"CNI_COMMAND={verb} CNI_NETNS={self.netns} … cni-bin/sealane <{self._network}.json"
        )
        self._shell.run(f"{self._folder}/cni-bin/sealane", text=json.dumps(config), environ=environ)

    def open(self) -> None:
        self._shell.show("ip", "netns", "add", self.name)
        self._call("ADD")
        self._start("nsenter", f"--net={self.netns}", "--")

    def close(self) -> None:
        self._stop()
        self._call("DEL")
        self._shell.show("ip", "netns", "del", self.name)


class Plain(Namespace):
    """A process that somebody started, attached while it runs."""

    name, port = "plain-box", 8084

    def __init__(self, screen: Screen, folder: str, network: str, gateway: str, sealane: Any) -> None:
        super().__init__(screen, folder, network, gateway)
        self._sealane = sealane

    @property
    def netns(self) -> str:
        assert self._process is not None
        return f"/proc/{self._process.pid}/ns/net"

    def open(self) -> None:
        self._screen.prompt("unshare --net busybox httpd -f -p 80 &")
        self._start("unshare", "--net", "--")
        assert self._process is not None
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(self.netns) == own:
            time.sleep(0.01)
        publish = ("--name", self.name, "--publish", f"{self.port}:80")
        self._sealane.show("attach", str(self._process.pid), self._network, *publish)

    def close(self) -> None:
        assert self._process is not None
        self._sealane.show("detach", str(self._process.pid), self._network)
        self._stop()


def root_of(folder: str) -> str:
    """A root file system of busybox alone, for Docker and podman."""
    root = f"{folder}/root"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "var"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    source = next((path for path in BUSYBOX if os.path.exists(path)), "")
    shutil.copy(source, f"{root}/bin/busybox")
    with contextlib.suppress(FileExistsError):
        os.symlink("busybox", f"{root}/bin/sh")
    return root


def _merged(*texts: str) -> str:
    """TOML tables of several files; a table that stands in two is written once."""
    tables: dict[str, list[str]] = {}
    for text in texts:
        table = ""
        for line in text.splitlines():
            if line.startswith("["):
                table = line
            elif line.strip() and not line.startswith("#"):
                tables.setdefault(table, []).append(line)
    return "\n".join("\n".join([table, *lines]) for table, lines in tables.items()) + "\n"
