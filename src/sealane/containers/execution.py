"""A further process in a running container: its streams and its exit code."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from types import TracebackType
from typing import BinaryIO, Self

from sealane.containers import files
from sealane.containers.supervisor import explain_failure

# The runtime writes a process's pid within milliseconds of starting it.
PID_FILE_TIMEOUT_S = 5.0
PID_FILE_PAUSE_S = 0.005


class ExecSession:
    """Streams of the process; a context manager that ends it.

    `wait` answers the process's exit code (128 + N for signal N), 127 for a command that does not exist and 126 for one
    that cannot be executed; `error` then says why.
    """

    def __init__(self, command: list[str], process_file: bytes, folder: str, container_id: str) -> None:
        token = os.path.join(folder, f"exec-{secrets.token_hex(8)}")
        self._process_file, self._log, self._pid_file = f"{token}.json", f"{token}.log", f"{token}.pid"
        self.error = ""
        files.write_atomic(self._process_file, process_file)
        arguments = [*command, "--log", self._log, "exec", "--pid-file", self._pid_file]
        arguments += ["--process", self._process_file, container_id]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            start_new_session=True,
        )  # fmt: skip
        self.stdin = _present(self._process.stdin)
        self.stdout = _present(self._process.stdout)
        self.stderr = _present(self._process.stderr)

    def wait(self, timeout: float | None = None) -> int:
        """Block until the process ends; subprocess.TimeoutExpired if it does not in time."""
        code = self._process.wait(timeout)
        code = 128 - code if code < 0 else code
        if os.path.exists(self._log) and os.path.getsize(self._log) and not os.path.exists(self._pid_file):
            # The runtime never started it.
            self.error, code = explain_failure(self._log, code)
        self._forget()
        return code

    def communicate(self, data: bytes = b"", timeout: float | None = None) -> tuple[int, bytes, bytes]:
        """Send `data`, read both streams to their end; (exit code, stdout, stderr)."""
        out, err = self._process.communicate(data, timeout)
        return self.wait(), out, err

    def kill(self) -> None:
        """End the process in the container and its process group. Idempotent."""
        deadline = time.monotonic() + PID_FILE_TIMEOUT_S
        # The runtime writes the file only after the process runs.
        while (
            self._process.poll() is None
            and not os.path.exists(self._pid_file)
            and time.monotonic() < deadline
        ):
            time.sleep(PID_FILE_PAUSE_S)
        if self._process.poll() is None:
            inside = files.read_bytes(self._pid_file)
            with contextlib.suppress(ProcessLookupError):
                if inside:
                    # The OCI runtime makes the process leader of a session of its own.
                    os.killpg(int(inside), signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        for path in (self._process_file, self._log, self._pid_file):
            files.remove(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


def _present(stream: object) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[return-value]
