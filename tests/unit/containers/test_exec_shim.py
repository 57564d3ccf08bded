"""An attendant with a stand-in for the OCI runtime. What only a real one shows is in tests/real/test_sessions.py."""

import json
import os
import socket
import sys
import time

import pytest

from sealane.containers import process
from sealane.containers.errors import LaunchError
from sealane.containers.frames import ERRORS, EXIT, INPUT, OUTPUT, Peer, frame
from sealane.containers.launch import launch_attendant
from sealane.containers.plan import ExecConfig, Paths

# Arguments: --log LOG exec --detach --pid-file PID --process FILE ID. The process outlives its starter, as runc's does.
RUNTIME = r"""#!/bin/bash
log=$2 pid_file=$6 folder=$(dirname "$0")
[ -e "$folder/hang" ] && exec sleep 60
if [ -e "$folder/refuse" ]; then cat "$folder/refuse" >> "$log"; echo "said on stderr" >&2; exit 1; fi
parent=$$ setsid bash -c 'while [ "$(cut -d" " -f4 /proc/$$/stat)" = "$parent" ]; do :; done
                          exec bash "$0"' "$folder/command" <&0 & echo $! > "$pid_file"
"""


class Rig:
    def __init__(self, folder):
        self.folder = folder
        self.paths = Paths(os.path.join(folder, "state"), os.path.join(folder, "run"))
        os.makedirs(self.paths.run_folder)
        self.runtime = os.path.join(folder, "runtime")
        self.file("runtime", RUNTIME)
        os.chmod(self.runtime, 0o755)
        mine, theirs = socket.socketpair()
        self.theirs = theirs
        self.peer = Peer(mine)
        mine.setblocking(True)
        mine.settimeout(100)
        self.said = []

    def file(self, name, text=""):
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
            file.write(text)

    def start(self, command="", *, early=b""):
        self.file("command", command)
        exec_config = ExecConfig(
            container_id="c1", runtime=[self.runtime], process={"terminal": False}, early=early.hex()
        )
        with self.theirs:
            launch_attendant(sys.executable, exec_config, self.paths, self.theirs)

    def hear(self, done=lambda said: EXIT in dict(said)):
        while not done(self.said):
            assert self.peer.is_open, self.said
            self.said += self.peer.receive()

    def text(self, kind):
        return b"".join(payload for found, payload in self.said if found == kind)

    def end(self):
        self.hear()
        return json.loads(self.text(EXIT))

    def attendants(self):
        """Processes that were started with this rig's files."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read()
            except OSError:
                continue
            if self.folder.encode() in words:
                found.append(int(pid))
        return found

    def clears(self):
        deadline = time.monotonic() + 100
        while self.attendants() or os.listdir(self.paths.run_folder):
            assert time.monotonic() < deadline, (self.attendants(), os.listdir(self.paths.run_folder))
            time.sleep(0.01)


@pytest.fixture
def rig(tmp_path):
    made = Rig(str(tmp_path))
    yield made
    made.peer.close()
    made.clears()


def test_a_process_is_talked_with_to_its_end(rig):
    rig.start("read word; echo got $word; echo err >&2; cat; exit 7", early=frame(INPUT, b"one\n"))
    rig.hear(lambda _: rig.text(OUTPUT) == b"got one\n")
    rig.peer.send(frame(INPUT, b"rest") + frame(INPUT))
    assert rig.end() == {"exit_code": 7, "error": ""}
    assert (rig.text(OUTPUT), rig.text(ERRORS)) == (b"got one\nrest", b"err\n")


def test_all_that_it_wrote_is_heard_before_its_end(rig):
    rig.start("seq 100000; exec kill -9 $$")
    assert rig.end()["exit_code"] == 137
    assert rig.text(OUTPUT).split()[-1] == b"100000"


def test_one_that_cannot_begin_is_an_error_and_leaves_no_file(rig):
    """The file has the process's environment in it."""
    exec_config = ExecConfig(container_id="c1", runtime=[rig.runtime], process={"terminal": False}, early="")
    with rig.theirs, pytest.raises(LaunchError, match="could not be started"):
        launch_attendant("/bin/false", exec_config, rig.paths, rig.theirs)
    assert os.listdir(rig.paths.run_folder) == []


def test_who_it_leaves_behind_keeps_nobody(rig):
    rig.start("sleep 120 & echo $!; exit 3")
    began = time.monotonic()
    assert rig.end()["exit_code"] == 3
    assert time.monotonic() - began < 60
    os.kill(int(rig.text(OUTPUT)), 9)


def test_what_the_runtime_refuses_is_said_once(rig):
    rig.file("refuse", '{"level": "error", "msg": "exec: nope: executable file not found in $PATH"}\n')
    rig.start()
    end = rig.end()
    assert end == {"exit_code": 127, "error": "exec: nope: executable file not found in $PATH"}
    assert rig.text(ERRORS) == b""


def test_a_runtime_that_is_not_there_is_told(rig):
    os.unlink(rig.runtime)
    rig.start()
    end = rig.end()
    assert end["exit_code"] == 125
    assert "FileNotFoundError" in end["error"]


def test_a_client_that_leaves_while_the_runtime_hangs_ends_it(rig):
    rig.file("hang")
    rig.start()
    rig.peer.close()


def test_a_client_that_leaves_ends_the_process(rig):
    rig.start("trap '' HUP TERM; echo $$; while :; do sleep 0.1; done")
    rig.hear(lambda _: rig.text(OUTPUT).endswith(b"\n"))
    found = process.identify(int(rig.text(OUTPUT)))
    rig.peer.close()
    deadline = time.monotonic() + 100
    while process.is_alive(found):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_sends_nonsense_is_one_that_leaves(rig):
    rig.start("echo $$; sleep 60")
    rig.hear(lambda _: rig.text(OUTPUT).endswith(b"\n"))
    rig.peer.send(b"\xff" * 100)
    found = process.identify(int(rig.text(OUTPUT)))
    deadline = time.monotonic() + 100
    while process.is_alive(found):
        assert time.monotonic() < deadline
        time.sleep(0.01)
