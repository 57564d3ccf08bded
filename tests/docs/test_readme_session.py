"""The README's sessions are real: each command is run, in order, and prints what the README says."""

import os
import re
import subprocess
import sys

import pytest

from docs.markdown import ROOT, Command, blocks, commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
SESSION = [command for block in blocks(README, "console") for command in commands(block)]
DAEMON = next(
    line for block in blocks(README, "sh") for line in block.splitlines() if line.startswith("sealane daemon")
)
TIMEOUT_S = 240
"""Cut short it would leave a daemon and its containers behind, in namespaces that nobody sees."""

pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)

# What differs from run to run, in the order in which it is looked for.
MASKS = [
    (re.compile(r"^ +\d+ +\d\d:\d\d:\d\d\.\d{3}"), "NUMBER TIME"),
    (re.compile(r"milliseconds=[\d.]+"), "milliseconds=N"),
    (re.compile(r"\d+ (kernel )?objects"), r"N \1objects"),
    (re.compile(r"running \d+\w"), "running Ns"),
    (re.compile(r"(sl[be]|n_|n:|\b)[0-9a-f]{8,32}(?=\b|_|:)"), r"\1ID"),
    (re.compile(r"sealane/[0-9a-f]{6}/"), "sealane/INSTANCE/"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "MAC"),
    (re.compile(r" +"), " "),
]


def masked(line: str) -> str:
    for pattern, instead in MASKS:
        line = pattern.sub(instead, line)
    return line.rstrip()


def script(session: list[Command]) -> str:
    """All commands in one shell, each announced on a line of its own; then the daemon is ended."""
    lines = [
        "shopt -s expand_aliases",
        DAEMON,
        "daemon=$!",
        "for _ in $(seq 200); do [ -S /run/sealane/sealane.sock ] && break; sleep 0.05; done",
    ]
    for number, command in enumerate(session):
        lines += [f"echo '@@{number}'", f"{{ {command.text}\n}} 2>&1"]
    return "\n".join([*lines, "echo '@@end'", "kill $daemon", "wait $daemon", "exit 0"])


def run(session: list[Command]) -> list[list[str]]:
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "COLUMNS": "120"}
    environ.pop("SEALANE_SOCKET", None)
    done = subprocess.run(
        ["scripts/in-namespaces", "bash", "-c", script(session)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    printed = re.split(r"^@@(?:\d+|end)\n", done.stdout, flags=re.MULTILINE)[1:-1]
    assert len(printed) == len(session), f"the session ended early:\n{done.stdout}\n{done.stderr}"
    return [text.splitlines() for text in printed]


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    missing = [name for name in ("unshare", "curl", "ip", "nft") if not _has(name)]
    if not any(map(_has, ("runc", "crun"))):
        missing.append("runc or crun")
    if missing:
        pytest.skip(f"the README's session needs {', '.join(missing)}")
    probe = subprocess.run(["scripts/in-namespaces", "true"], cwd=ROOT, capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no private namespaces here: {probe.stderr.decode().strip()}")
    return run(SESSION)


def _has(program: str) -> bool:
    return any(
        os.access(os.path.join(folder, program), os.X_OK)
        for folder in [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]
    )


@pytest.mark.parametrize("number", range(len(SESSION)), ids=lambda n: f"{n:02d} {SESSION[n].text[:40]}")
def test_a_command_prints_what_the_readme_says(printed: list[list[str]], number: int) -> None:
    shown, real = SESSION[number].output, printed[number]
    assert [masked(line) for line in real] == [masked(line) for line in shown], "\n".join(real)


def test_masks_leave_what_matters() -> None:
    """A mask that hid addresses, names or verdicts would make the session pass whatever is printed."""
    for line in ("no", "error: network vault has no way in", "eth0  10.128.1.7/22  127.0.0.1:9000->9000/tcp"):
        assert masked(line).replace(" ", "") == line.replace(" ", "")
    assert masked("clean: 3 kernel objects are as") != masked("3 findings")
