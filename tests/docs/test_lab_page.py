"""The session of docs/lab.md is real, and its tables are those of the code."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from docs.markdown import ROOT, Command, blocks, commands, section, table_rows
from sealane.cli.registry import COMMANDS
from sealane.lab.read import read_lab
from sealane.lab.spec import MAX_HOSTS, MTU_MAX, MTU_MIN

PAGE = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
FILE = ROOT / "examples" / "lab" / "cluster.yaml"
SESSION = [command for block in blocks(PAGE, "console") for command in commands(block)]
PATH = f"{os.path.dirname(sys.executable)}:/usr/sbin:/sbin:{os.environ['PATH']}"
TIMEOUT_S = 240


def run(session: list[Command]) -> list[list[str]]:
    lines = []
    for number, command in enumerate(session):
        lines += [f"echo '@@{number}'", f"{{ {command.text}\n}} 2>&1"]
    # Whatever went wrong before, nothing stays.
    lines += ["echo '@@end'", "sealane lab ls -q | while read name; do sealane lab down --name $name; done"]
    environ = {**os.environ, "PATH": PATH, "NO_COLOR": "1"}
    for name in ("SEALANE_SOCKET", "SEALANE_LAB"):
        environ.pop(name, None)
    done = subprocess.run(
        ["scripts/in-namespaces", "bash", "-c", "\n".join(lines)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    printed = re.split(r"^@@(?:\d+|end)\n", done.stdout, flags=re.MULTILINE)[1:-1]
    assert len(printed) == len(session), f"the session ended early:\n{done.stdout}\n{done.stderr}"
    return [text.splitlines() for text in printed]


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    missing = [
        name for name in ("unshare", "curl", "ip", "nft", "etcd", "ping") if not shutil.which(name, path=PATH)
    ]
    if missing:
        pytest.skip(f"the session needs {', '.join(missing)}")
    probe = subprocess.run(["scripts/in-namespaces", "true"], cwd=ROOT, capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no private namespaces here: {probe.stderr.decode().strip()}")
    return run(SESSION)


@pytest.mark.timeout(TIMEOUT_S + 30)
@pytest.mark.parametrize("number", range(len(SESSION)), ids=lambda n: f"{n:02d} {SESSION[n].text[:40]}")
def test_a_command_prints_what_the_page_says(printed: list[list[str]], number: int) -> None:
    shown = [line for line in SESSION[number].output if line]
    assert [line.rstrip() for line in printed[number]] == shown, "\n".join(printed[number])


def test_the_file_of_the_page_is_the_example() -> None:
    assert blocks(PAGE, "yaml") == [FILE.read_text(encoding="utf-8")]
    assert [host.name for host in read_lab(FILE.read_text(encoding="utf-8")).hosts] == ["h1", "h2", "h3"]


def test_every_command_of_the_lab_is_in_the_table() -> None:
    rows = table_rows(section(PAGE, "## Commands"))
    shown = set(re.findall(r"`lab (\w+)", " ".join(row[0] for row in rows)))
    assert shown == {command.path[1] for command in COMMANDS if command.path[0] == "lab"}


def test_every_field_of_the_table_is_read_and_bounds_are_as_said() -> None:
    fields = {row[0].strip("`") for row in table_rows(section(PAGE, "## The lab file"))}
    values = {
        "name": "x", "hosts": "1", "underlay.kind": "routed", "underlay.ipv4": "10.0.0.0/16", "underlay.ipv6": "'fd00::/48'",
        "mtu": "1500", "loss": "1%", "latency": "1ms", "daemon_arguments": "[a]", "etcd.members": "3", "etcd.arguments": "[a]",
    }  # fmt: skip
    assert fields == set(values)
    for field, value in values.items():
        place, _, key = field.rpartition(".")
        place = place or ("underlay" if key in {"mtu", "loss", "latency"} else "")
        more = "" if key == "hosts" else "hosts: 1\n"
        read_lab(f"{more}{place}: {{{key}: {value}}}" if place else f"{more}{key}: {value}")
    text = section(PAGE, "## The lab file")
    assert f"{MTU_MIN} to {MTU_MAX}" in text
    assert f"at most {MAX_HOSTS} hosts" in text
