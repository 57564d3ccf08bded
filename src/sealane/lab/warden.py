"""`python -m sealane.lab.warden ROOT NAME LOCK`: starts the holder in a pid namespace, and clears up after it.

Two processes, so that the death of either leaves nothing: when the holder is killed its namespaces and processes go with
it, and the warden removes control groups and files; when the warden is killed the holder ends the lab and removes them.
"""

import contextlib
import os
import signal
import sys

from sealane.lab.folder import Folder
from sealane.lab.holder import hold
from sealane.lab.namespaces import CLONE_NEWPID, become_root_inside, unshare


def main(argv: list[str]) -> int:
    """LOCK is a descriptor that holds the lab's lock: both processes keep it to their end."""
    root, name, lock = argv
    folder = Folder(root, name)
    os.set_inheritable(int(lock), False)
    os.chdir("/")
    os.umask(0o022)
    if os.geteuid() != 0:
        become_root_inside()
    unshare(CLONE_NEWPID)
    watch, alive = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(alive)
        _hold(folder, watch, int(lock))
    os.close(watch)
    _close_stdout()
    # Ends with the holder, by whatever order: it is told, and ends the lab.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda given, _frame: _pass_on(pid, given))
    _, status = os.waitpid(pid, 0)
    if folder.is_locked_by(int(lock)):
        folder.remove()
    return os.waitstatus_to_exitcode(status) & 0xFF


def _hold(folder: Folder, watch: int, lock: int) -> None:
    """Never returns."""
    code = 1
    try:
        hold(folder, watch)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            end_everything()
            if folder.is_locked_by(lock):
                folder.remove()
            sys.stderr.flush()
        os._exit(code)


def end_everything() -> None:
    """All processes of the lab but this one, which is its first."""
    if os.getpid() != 1:
        # Without a pid namespace of its own, -1 would be the machine.
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _close_stdout() -> None:
    """`lab up` reads until the holder has closed its own, too."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
