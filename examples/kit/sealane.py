"""A daemon of one's own, and the command line as people use it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from examples.kit.screen import Screen
from examples.kit.trouble import DemoError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMAND = (sys.executable, "-m", "sealane")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 90.0
LAST_WORDS = 2000
NOT_RUN = 125
"""This exit code of `sealane exec` and those above are its own, as in Docker."""


class Sealane:
    """Runs while it is used as a context. State, run directory and socket are in `folder`."""

    def __init__(self, screen: Screen, folder: str) -> None:
        self._screen = screen
        self.folder = folder
        self._log = os.path.join(folder, "daemon.log")
        socket = os.path.join(folder, "sealane.sock")
        self._options = ("--state", f"{folder}/state", "--run-dir", f"{folder}/run", "--socket", socket)
        self._environ = {**os.environ, "SEALANE_SOCKET": socket, "PYTHONPATH": f"{ROOT}/src"}
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the daemon

    @property
    def pid(self) -> int:
        return self._daemon.pid if self._daemon else 0

    def start(self) -> float:
        """Start it and wait until it answers; return the seconds that took."""
        begun = time.monotonic()
        with open(self._log, "ab") as log:
            # In a session of its own, Ctrl-C does not reach it: it is needed to clean up.
            self._daemon = subprocess.Popen(
                [*COMMAND, "daemon", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                cwd=ROOT,
                start_new_session=True,
            )
        while self._run("version").returncode != 0:
            if self._daemon.poll() is not None:
                raise DemoError(
                    f"the daemon ended at once (exit code {self._daemon.returncode})\n{self.log()}"
                )
            if time.monotonic() - begun > START_TIMEOUT_S:
                raise DemoError(f"the daemon does not answer after {START_TIMEOUT_S:.0f} s\n{self.log()}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; networks and containers stay. Idempotent."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def log(self) -> str:
        """The end of what it has said."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()[-LAST_WORDS:].strip()

    # --- the command line

    def show(self, *arguments: str) -> str:
        """Type a command before the audience; return what it printed. DemoError unless it succeeded."""
        self._screen.prompt(shlex.join(("sealane", *arguments)))
        done = self._run(*arguments)
        self._screen.output(done.stdout)
        return self._succeeded(arguments, done)

    def watch(self, *arguments: str) -> float:
        """Type a command whose output comes little by little; return the seconds it took."""
        self._screen.prompt(shlex.join(("sealane", *arguments)))
        begun = time.monotonic()
        with subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, env=self._environ, cwd=ROOT
        ) as process:
            for line in process.stdout or ():
                self._screen.output(line)
        if process.returncode != 0:
            raise DemoError(f"`sealane {shlex.join(arguments)}` failed (exit code {process.returncode})")
        return time.monotonic() - begun

    def ask(self, *arguments: str) -> Any:
        """The answer of a command with --json, unseen."""
        return json.loads(self._succeeded(arguments, self._run(*arguments, "--json")))

    def events(self) -> list[dict[str, Any]]:
        """All so far: one document a line."""
        said = self._succeeded(("events",), self._run("events", "--json"))
        return [json.loads(line) for line in said.splitlines()]

    def inside(self, container: str, *command: str, text: str = "") -> str:
        """What a command in a container printed, whatever its exit code. DemoError if it could not be run.

        `text` is its standard input.
        """
        done = self._run("exec", *(("-i",) if text else ()), container, *command, text=text)
        if done.returncode >= NOT_RUN:
            raise DemoError(f"{container} cannot be asked: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def quietly(self, *arguments: str) -> bool:
        """Run a command; whether it succeeded."""
        return self._run(*arguments).returncode == 0

    def _run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            env=self._environ,
            cwd=ROOT,
            check=False,
        )

    def _succeeded(self, arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise DemoError(f"`sealane {shlex.join(arguments)}` failed (exit code {done.returncode}): {said}")
        return done.stdout
