"""The demo as people run it: a program in a terminal or a pipe, by root and by anybody."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from harness.host import ROOT
from harness.netns import eventually
from harness.patience import Watch

pytestmark = [pytest.mark.real, pytest.mark.kernel]

IN_NAMESPACES = os.path.join(ROOT, "scripts", "in-namespaces")
DEMO = (IN_NAMESPACES, sys.executable, "-m", "examples.shop.demo")
TIMEOUT_S = 60
"""What issue 2 allows after the installation."""

NOBODY = 65534
ANSI = re.compile(r"\x1b\[[0-9;]*m")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SUPERVISOR = """
import ctypes, json, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: who is left behind, is left to us.
code = subprocess.call(sys.argv[2:])
left = []
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        fields = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
        if int(fields[1]) == os.getpid() and fields[0] not in "ZX":
            left.append(open(f"/proc/{name}/cmdline").read().replace("\\0", " "))
            os.kill(int(name), 9)
    except OSError:
        pass
json.dump({"code": code, "left": left}, open(sys.argv[1], "w"))
"""
"""Runs a command, notes its exit code and which of its descendants have outlived it."""


def why_not():
    if not any(shutil.which(name, path=SYSTEM_PATH) for name in ("runc", "crun")):
        return "no OCI runtime is installed"
    return ""


if why_not():
    pytest.skip(why_not(), allow_module_level=True)


@pytest.fixture
def run(tmp_path):
    """Run a demo to its end; return (exit code, output). Whatever happens, it must leave no process behind."""
    report = tmp_path / "report.json"

    def start(*command, **options):
        return subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(report), *command],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options},
        )

    def ended():
        found = json.loads(report.read_text())
        assert found["left"] == []
        return found["code"]

    def to_the_end(*command, **options):
        with start(*command, **options) as process:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        return ended(), output

    to_the_end.start, to_the_end.ended = start, ended
    return to_the_end


def check_show(output):
    """Every act has been played, with what must be seen in it."""
    headings = re.findall(r"^ (\d)  (.+?) ─", output, re.MULTILINE)
    assert [number for number, _ in headings] == list("1234567")
    for command in (
        "$ sealane up -d -f examples/shop/compose.yaml",
        "$ sealane network ls",
        "$ sealane exec shop-web-1 getent hosts api",
        "visitor$ curl http://192.0.2.10:8080/",
        "$ nft flush ruleset",
        "$ sealane down -f examples/shop/compose.yaml",
        "$ sealane audit",
        "$ ip -brief link",
        "$ nft list tables",
    ):
        assert command in output, command
    assert "three crates of oranges in stock - served to 192.0.2.200 by shop-web-1" in output
    assert matrix(output) == {
        "visitor": "·✓··",
        "host": "✓✓✓✓",
        "web": "✓✓✓·",
        "api": "✓✓✓✓",
        "db": "··✓✓",
    }
    healed = re.search(r"✓ healed ([0-9.]+) ms after the flush", output)
    assert 0 < float(healed[1]) < 5000
    assert re.search(r"drift.repaired +\d+ objects", output)
    assert "\n  clean: 0 kernel objects" in output
    assert "✗" not in output
    assert output.rstrip().splitlines()[-1].startswith("  Next: ")


def matrix(output):
    begin = output.index("web:80 direct")
    rows = output[begin:].splitlines()[1:6]
    return {row.split()[0]: "".join(row.split()[1:]) for row in rows}


def test_root_sees_the_whole_show_in_a_pipe_without_colours(run):
    watch = Watch()
    code, output = run(*DEMO)
    assert code == 0, output
    check_show(output)
    assert "\x1b" not in output
    assert watch.elapsed_s() < TIMEOUT_S


def test_an_unprivileged_user_sees_it_in_a_terminal_of_eighty_columns(run, tmp_path):
    if not has_users():
        pytest.skip("there is no user but root here: what root sees, an unprivileged user has seen")
    code, output = in_terminal(run, 80, *as_nobody(tmp_path), *DEMO, "--fast")
    plain = ANSI.sub("", output)
    assert code == 0, plain
    check_show(plain)
    assert "\x1b[32m✓" in output
    assert max(len(line) for line in plain.splitlines()) <= 80


def has_users():
    with open("/proc/self/uid_map") as file:
        return sum(int(line.split()[2]) for line in file) > NOBODY


def as_nobody(tmp_path):
    """A command prefix: whoever it runs is nobody, may look into this Python and this repository, and has a home."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    hidden = [path for path in (ROOT, sys.prefix, sys.base_prefix) if obstacle(path)]
    lines = ["set -e", "cd /"]
    for path in hidden:
        # In a mount namespace of its own, the way there is made of new folders, and only the place itself is shown.
        wall, aside = obstacle(path), tmp_path / f"aside{hidden.index(path)}"
        aside.mkdir()
        lines += [f"mount --bind '{path}' '{aside}'", f"mount -t tmpfs -o mode=0755 tmpfs '{wall}'",
                  f"mkdir -p '{path}'", f"mount --move '{aside}' '{path}'"]  # fmt: skip
    lines += [f"cd '{ROOT}'", 'exec "$@"']
    prefix = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", "\n".join(lines), "sh"]
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    environ = ["env", "-i", f"HOME={home}", "PATH=/usr/local/bin:/usr/bin:/bin", "TERM=xterm", "LANG=C.UTF-8"]
    return [*prefix, *user, *environ]


def obstacle(path):
    """The first folder on the way to `path` that is closed to others."""
    parts = path.split("/")
    ways = ["/".join(parts[:number]) or "/" for number in range(1, len(parts) + 1)]
    return next((way for way in ways if not os.stat(way).st_mode & 0o001), "")


def in_terminal(run, columns, *command):
    """The same, with a pseudo-terminal of that width as standard output."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "NO_COLOR"}}
    process = run.start(*command, stdout=slave, stderr=slave, env=environ)
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 1.0)
        try:
            chunk = os.read(master, 65536) if ready else b""
        except OSError:  # EIO: the last one who had it open is gone.
            break
        seen += chunk
    os.close(master)
    process.wait(100)
    return run.ended(), seen.decode().replace("\r\n", "\n")


def test_interrupted_it_cleans_up(run, tmp_path):
    path = tmp_path / "output"
    with open(path, "w") as out:
        process = run.start(*DEMO, stdout=out)
    eventually(lambda: "Who reaches whom" in path.read_text(), TIMEOUT_S, "the demo is half-way")
    (demo,) = [pid for pid in children(process.pid) if "examples.shop.demo" in cmdline(pid)]
    os.kill(demo, signal.SIGINT)
    process.wait(TIMEOUT_S)
    assert run.ended() == 130
    assert "interrupted; everything is cleaned up" in path.read_text()


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def cmdline(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def test_what_is_not_as_expected_ends_it_with_a_reason(run):
    program = (
        "import sys; from examples.shop import demo; demo.REACH.expected['visitor']['db:5432'] = True; "
        "sys.exit(demo.perform(demo.play, demo.PROJECT, ''))"
    )
    code, output = run(IN_NAMESPACES, sys.executable, "-c", program)
    assert code == 1
    assert "✗ the matrix is wrong: visitor does not reach db:5432" in output
    assert "The daemon said last:" in output
    assert "flushes the ruleset" not in output


def test_a_page_is_asked_for_when_its_server_listens(run, tmp_path):
    """`up -d` waits for no server: on a busy machine the visitor was refused."""
    shutil.copytree(os.path.join(ROOT, "examples/shop"), tmp_path / "shop")
    file = tmp_path / "shop/compose.yaml"
    late = file.read_text().replace("[python3, /app/web.py]", 'sh -c "sleep 1; exec python3 /app/web.py"')
    assert late != file.read_text()
    file.write_text(late)
    program = (
        "import sys; from examples.shop import demo; "
        f"play = lambda stage: demo.request(stage, demo.acts.up(stage, 'shop', {str(file)!r})); "
        "sys.exit(demo.perform(play, 'shop', ''))"
    )
    code, output = run(IN_NAMESPACES, sys.executable, "-c", program)
    assert code == 0, output
    assert "port 8080 answers" in output
    assert "HTTP 200" in output


def hiding(*programs):
    """A command prefix: these are not installed. The namespaces are made here, since `ip` may be one of them."""
    places = [shutil.which(name, path=folder) for name in programs for folder in SYSTEM_PATH.split(":")]
    covers = [f"mount --bind /dev/null '{os.path.realpath(place)}'" for place in places if place]
    lines = ["set -e", "ip link set lo up", "mount -t tmpfs tmpfs /run", *dict.fromkeys(covers), 'exec "$@"']
    return [
        "unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        "\n".join(lines),
        "sh",
    ]


def test_without_iproute2_and_nft_it_says_so_and_goes_on(run):
    code, output = run(*hiding("ip", "nft"), *DEMO[1:])
    assert code == 0, output
    assert "there is no visitor: the host itself asks" in output
    assert "nft is not installed" in output
    assert "HTTP 200" in output
    assert re.search(r"all rules gone: python", output)
    assert "✓ healed" in output
    assert "\n  links: lo\n" in output


def test_without_an_oci_runtime_it_says_how_to_get_one(run):
    code, output = run(*hiding("runc", "crun"), *DEMO[1:])
    assert code == 1
    assert "apt-get install runc" in output
    assert "sealane up" not in output


def test_where_it_would_touch_somebodys_network_it_refuses(run):
    """A namespace with a link in it stands for the machine's own."""
    lines = 'mount -t tmpfs tmpfs /run; ip link add eth9 type veth peer name eth8; "$@"; code=$?; ip -brief link; exit $code'
    prefix = ["unshare", "--net", "--mount", "--propagation", "private", "--", "sh", "-c", lines, "sh"]
    code, output = run(*prefix, *DEMO[1:])
    assert code == 1
    assert "would change the machine's own network" in output
    assert "scripts/in-namespaces" in output
    links = re.findall(r"^(\w+)\S* +(?:UP|DOWN|UNKNOWN) ", output, re.MULTILINE)
    assert sorted(links) == ["eth8", "eth9", "lo"]


def test_it_ends_and_cleans_up_when_nobody_reads_on(run):
    process = run.start(*DEMO)
    assert "sealane" in process.stdout.readline()
    process.stdout.close()
    process.wait(TIMEOUT_S)
    assert run.ended() == 1


def test_the_real_one_says_what_it_lacks(run):
    program = [sys.executable, "-m", "examples.real.demo"]
    code, output = run(*hiding("nginx"), *program)
    assert code == 1
    assert "apt-get install nginx-light" in output


@pytest.mark.slow
def test_the_real_one_plays_to_its_end(run):
    """tests/real/test_stack.py has the same stack under more eyes."""
    code, output = run(IN_NAMESPACES, sys.executable, "-m", "examples.real.demo")
    assert code == 0, output
    assert "pages read meanwhile, none failed" in output
    assert "✗" not in output


def test_make_demo_runs_this():
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "scripts/in-namespaces .venv/bin/python -m examples.shop.demo" in done.stdout
