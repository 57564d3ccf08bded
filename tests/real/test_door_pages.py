"""The pages of docs/integrations: every command is run, in order, on a host of its own, and prints what the page says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.markdown import ROOT, Command, blocks, commands
from docs.test_readme_session import masked
from harness.host import Host, Lan

pytestmark = [pytest.mark.real, pytest.mark.kernel]

PAGES = {
    "kubernetes": (),
    "containerd": ("containerd", "ctr", "podman", "runc", "busybox", "curl"),
    "podman": ("podman", "runc", "busybox", "curl"),
    "oci": ("runc", "podman", "busybox", "curl", "skopeo", "umoci", "systemd-nspawn"),
}
WRITTEN = "/usr/share/containers"
"""Where commands write beside what is there: an overlay keeps it from the machine."""
NUMBER = 35
TIMEOUT_S = 90
SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin"
SESSIONS = {
    page: [
        command
        for block in blocks(
            (ROOT / "docs" / "integrations" / f"{page}.md").read_text(encoding="utf-8"), "console"
        )
        for command in commands(block)
    ]
    for page in PAGES
}
# What podman and runc need in a test: places of their own, and no limits raised.
SURROUNDINGS = """
runc() {
    command runc "$@" || return
    [ "$1" = spec ] || return 0
    local edit='import json; c = json.load(open("config.json")); del c["process"]["rlimits"]'
    python3 -c "$edit; json.dump(c, open('config.json', 'w'))"
}
podman() {
    local flags=(--root "$STATE/podman" --runroot /run/podman-test --tmpdir /run/podman-test/tmp --storage-driver vfs)
    flags+=(--cgroup-manager cgroupfs --events-backend file --runtime /usr/sbin/runc)
    if [ "$1" = run ]; then
        shift
        command podman "${flags[@]}" run --ulimit nofile=512:512 --ulimit nproc=512:512 --log-driver k8s-file "$@"
    else
        command podman "${flags[@]}" "$@"
    fi
}
"""


def script(session: list[Command]) -> str:
    lines = [SURROUNDINGS]
    for number, command in enumerate(session):
        # A command that goes on in the background must not hold the pipe.
        text = f"{command.text[:-1]} >/dev/null 2>&1 &" if command.text.endswith("&") else command.text
        lines += [f"echo '@@{number}'", f"{{ {text}\n}} 2>&1"]
    return "\n".join([*lines, "echo '@@end'"])


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        for place in ("/opt", "/etc/cni", "/srv", "/usr/libexec", "/etc/containers", "/var/lib/cni"):
            if os.path.isdir(place):
                host.ns.sh("mount", "-t", "tmpfs", "tmpfs", place)
        host.ns.sh("mkdir", "-p", "/run/over/upper", "/run/over/work")
        options = f"lowerdir={WRITTEN},upperdir=/run/over/upper,workdir=/run/over/work"
        host.ns.sh("mount", "-t", "overlay", "over", "-o", options, WRITTEN)
        yield host


@pytest.fixture(scope="module")
def printed(machine: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """By page, what each of its commands has printed."""
    inside = ["nsenter", f"--net={machine.ns.path}", f"--mount=/proc/{machine.ns.pid}/ns/mnt", "--"]
    state = tmp_path_factory.mktemp("state")
    daemon = _containerd(inside, state) if shutil.which("containerd", path=SEARCH) else None
    try:
        return {
            page: _printed(inside, machine, state, session)
            for page, session in SESSIONS.items()
            if _can(page)
        }
    finally:
        if daemon is not None:
            daemon.terminate()
            daemon.wait(100)


def _containerd(inside: list[str], state: Path) -> subprocess.Popen[bytes]:
    settings = state / "containerd.toml"
    settings.write_text(
        f'version = 2\nroot = "{state}/containerd"\nstate = "/run/containerd-state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    )
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*inside, "containerd", "--config", str(settings)], stdout=quiet, stderr=quiet)


def _can(page: str) -> bool:
    return all(shutil.which(program, path=SEARCH) for program in PAGES[page])


def _printed(inside: list[str], machine: Host, state: Path, session: list[Command]) -> list[list[str]]:
    path = f"{os.path.dirname(sys.executable)}:{SEARCH}"
    environ = {**machine._environment(), "PATH": path, "COLUMNS": "120", "STATE": str(state)}
    done = subprocess.run(
        [*inside, "bash", "-c", script(session)],
        cwd="/tmp",
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    # Each page begins with nothing installed.
    machine.sealane("cni", "uninstall")
    machine.sealane("podman", "uninstall")
    machine.sealane("oci", "uninstall")
    for network in machine.api.get("/networks"):
        machine.api.remove_network(network["name"], force=True)
    found = re.split(r"^@@(?:\d+|end)\n", done.stdout, flags=re.MULTILINE)[1:-1]
    assert len(found) == len(session), f"the session ended early:\n{done.stdout}\n{done.stderr}"
    return [text.splitlines() for text in found]


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page, session in SESSIONS.items() for number in range(len(session))],
)
def test_a_command_prints_what_the_page_says(
    printed: dict[str, list[list[str]]], page: str, number: int
) -> None:
    if page not in printed:
        pytest.skip(f"needs {', '.join(p for p in PAGES[page] if not shutil.which(p, path=SEARCH))}")
    command, real = SESSIONS[page][number], printed[page][number]
    assert [masked(line) for line in real] == [masked(line) for line in command.output], (
        f"{command.text}\n" + "\n".join(real)
    )
