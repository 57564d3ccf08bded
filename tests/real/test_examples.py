"""The examples' own parts: what the screen does with text, what counts as wrong, and that their pages tell the truth."""

import glob
import io
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from harness.host import ROOT

# Not only with `python -m pytest`, which looks in the current directory too.
sys.path.append(ROOT)
from examples.kit import probes, ruleset  # noqa: E402
from examples.kit.matrix import Reach  # noqa: E402
from examples.kit.screen import Screen, printable  # noqa: E402

EXAMPLES = os.path.join(ROOT, "examples")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class OldTerminal(Terminal):
    encoding = "iso8859-1"


@pytest.fixture
def eighty(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


# --- the screen -----------------------------------------------------------------------------------------------------


def test_colours_are_for_terminals_only(eighty):
    for out, environ, coloured in (
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ):
        Screen(out, environ, pauses=False).verdict("done")
        assert ("\x1b[32m" in out.getvalue()) is coloured
        assert "done" in out.getvalue()


def test_nothing_is_wider_than_the_terminal(eighty):
    out = Terminal()
    screen = Screen(out, {"NO_COLOR": "1"}, pauses=False)
    screen.title("title", "word " * 40)
    screen.heading("heading")
    screen.say("word " * 40)
    screen.verdict("word " * 40)
    screen.output("x" * 200)
    assert max(len(line) for line in out.getvalue().splitlines()) <= 80
    assert "…" in out.getvalue()


def test_a_pipe_gets_whole_lines():
    out = io.StringIO()
    Screen(out, {}).output("x" * 500)
    assert out.getvalue() == f"  {'x' * 500}\n"


def test_only_terminals_are_paused_for(monkeypatch, eighty):
    slept = []
    monkeypatch.setattr("examples.kit.screen.time.sleep", slept.append)
    Screen(io.StringIO(), {}).pause(1)
    Screen(Terminal(), {}, pauses=False).pause(1)
    assert slept == []
    Screen(Terminal(), {}).pause(1)
    assert slept == [1]


def test_an_old_encoding_gets_plain_characters(eighty):
    out = OldTerminal()
    screen = Screen(out, {"NO_COLOR": "1"}, pauses=False)
    screen.heading("heading")
    screen.table(("from", "to"), [["a", ("✓", "green")], ["b", ("·", "dim")]])
    out.getvalue().encode("ascii")
    assert re.search(r"a +y\n +b +\.", out.getvalue())


def test_columns_of_a_table_line_up_whatever_the_styles(eighty):
    out = Terminal()
    Screen(out, {}, pauses=False).table(
        ("one", "two"), [[("long cell", "cyan"), "x"], ["a\nb", ("y", "green")]]
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert plain == ["  one         two", "  long cell   x", "  a           y", "  b"]


def test_output_of_others_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\rc\u202ed\te") == "a?[2Jb?c?d     e"


# --- the matrix -----------------------------------------------------------------------------------------------------

REACH = Reach({"web:80": ("web", 80), "db:5": ("db", 5)}, {"visitor": "web:80", "db": ""})


def test_a_matrix_as_expected_has_no_mismatch():
    assert (
        REACH.mismatches({"visitor": {"web:80": True, "db:5": False}, "db": {"web:80": False, "db:5": False}})
        == []
    )


def test_too_open_and_too_closed_are_both_wrong_and_stand_out():
    found = {"visitor": {"web:80": False, "db:5": True}}
    assert REACH.mismatches(found) == ["visitor does not reach web:80", "visitor reaches db:5"]
    assert REACH.rows(found) == [["visitor", ("· ✗ wrong", "red"), ("✓ ✗ wrong", "red")]]


# --- probes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def port():
    """Of a listener on 127.0.0.1 that closes what it accepts."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    return free


def test_open_and_closed_ports_are_told_apart_from_here_and_from_another_process(port, closed_port):
    targets = [f"127.0.0.1:{port}", f"127.0.0.1:{closed_port}"]
    assert probes.Here("here").ask("open_ports", targets) == [True, False]
    with probes.Elsewhere("there", ()) as there:
        assert there.ask("open_ports", targets) == [True, False]
        with pytest.raises(OSError, match="there: no such operation: nonsense"):
            there.ask("nonsense")
        with pytest.raises(OSError, match=r"there: .*refused"):
            there.ask("page", targets[1])
        assert os.path.exists(f"/proc/{there.pid}")
    assert not os.path.exists(f"/proc/{there.pid}")


def test_a_watch_counts_what_was_in_vain(port, closed_port):
    for target, failing in ((port, False), (closed_port, True)):
        watch = probes.Watch(f"127.0.0.1:{target}")
        seen = watch.stop()
        assert seen["tries"] >= probes.KNOCKERS - 1
        assert seen["failed"] == (seen["tries"] if failing else 0)
        assert seen["back"] is not failing


def test_a_watch_that_ends_waits_for_a_port_that_comes_back(closed_port):
    watch = probes.Watch(f"127.0.0.1:{closed_port}")
    opened = threading.Timer(0.3, lambda: servers.append(socket.create_server(("127.0.0.1", closed_port))))
    servers = []
    opened.start()
    seen = watch.stop(100)
    opened.join()
    servers[0].close()
    assert seen["back"]
    assert 0 < seen["failed"] < seen["tries"]


# --- processes ------------------------------------------------------------------------------------------------------


def test_whoever_has_lost_its_parent_is_ended_too():
    program = """
import subprocess
from examples.kit import processes
processes.adopt_orphans()
subprocess.run(["sh", "-c", "sleep 300 & (sleep 300 &); sh -c 'sleep 300 & wait' & sleep 0.2"], check=True)
left = processes.children()
print(processes.end_all(), processes.children(), [pid for pid in left if processes.is_alive(pid)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "4 [] []\n"


# --- netlink by hand ------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_flush_is_heard_with_its_author(by_hand):
    """In a process of its own, in its own network namespace: the flush must not meet anybody else's rules."""
    program = f"""
import os, subprocess, sys
from examples.kit import ruleset
subprocess.run(["nft", "add table ip a; add table inet b"], check=True)
with ruleset.Generations() as generations:
    {"ruleset._flush_by_hand()" if by_hand else "ruleset.flush()"}
    import time
    deadline = time.monotonic() + 100
    while not generations.heard() and time.monotonic() < deadline:
        time.sleep(0.01)
    (heard,) = generations.heard()
print(heard.process, heard.pid == os.getpid(), subprocess.check_output(["nft", "list", "tables"]) == b"")
"""
    done = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    author, own, empty = done.stdout.split()
    assert (own, empty) == (str(by_hand), "True")
    assert author == "nft" if not by_hand else author.startswith("python")


def test_messages_are_packed_as_netlink_wants_them():
    message = ruleset._message((10 << 8) | 2, 5, 0)
    assert message == bytes.fromhex("14000000 020a 0500 01000000 00000000 00000000".replace(" ", ""))
    assert ruleset._messages(message + message) == [((10 << 8) | 2, bytes(4))] * 2


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(glob.glob(f"{EXAMPLES}/**/*.md", recursive=True)))
def test_files_that_a_page_names_exist(path):
    with open(path) as file:
        text = file.read()
    named = re.findall(r"`([a-z_]+/[a-z_./-]+|[a-z_]+\.(?:yaml|py|sh|sql|conf))`", text)
    assert named
    for name in named:
        places = [os.path.join(base, name) for base in (os.path.dirname(path), ROOT)]
        places += glob.glob(os.path.join(os.path.dirname(path), "*", name))
        assert any(os.path.exists(place) for place in places), name


def commands(path, heading):
    """The lines of the first block of shell below a heading of a page."""
    with open(path) as file:
        section = file.read().split(f"## {heading}\n")[1]
    return re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()


@pytest.mark.real
@pytest.mark.kernel
def test_the_commands_of_the_real_examples_page_work_as_they_stand():
    """Without `sudo`: we are root already. Only the state is kept elsewhere, so that none stays."""
    lines = [line.removeprefix("sudo ") for line in commands(f"{EXAMPLES}/real/README.md", "Run it")]
    assert lines[0] == ".venv/bin/sealane daemon &"
    script = [
        "set -e",
        lines[0].replace("daemon", "daemon --state /run/state"),
        "daemon=$!",
        # Also of a page that is wrong no container is left.
        (
            "trap '.venv/bin/sealane down -f examples/real/compose.yaml >/dev/null 2>&1 || true;"
            " kill $daemon; wait $daemon || true' EXIT"
        ),
        "until .venv/bin/sealane version >/dev/null 2>&1; do kill -0 $daemon; sleep 0.05; done",
        # Who types these is slower than nginx starts.
        *(
            f"timeout 100 {line}".replace("curl ", "curl --retry 50 --retry-delay 1 --retry-connrefused ")
            for line in lines[1:]
        ),
    ]
    done = subprocess.run(
        [f"{ROOT}/scripts/in-namespaces", "bash", "-c", "\n".join(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '{"written": "Ada"}' in done.stdout
    assert '"text": "hello"' in done.stdout
    assert re.search(r"^10\.\S+ +db$", done.stdout, re.MULTILINE)
    assert "network real_front  removed" in done.stdout
