"""Another plugin as a process, run as the specification says: the same environment, the whole configuration on its
input, its complaints passed through, its result or error on its output."""

import posix

from sealane.programs import read_all, write_all

OUTPUT_BYTES_MAX = 1 << 20


def find(name: bytes) -> bytes:
    """In the directories of CNI_PATH. Raises FileNotFoundError."""
    for directory in posix.environ.get(b"CNI_PATH", b"").split(b":"):
        path = directory + b"/" + name
        if directory and posix.access(path, posix.X_OK):
            return path
    raise FileNotFoundError


def run(path: bytes, verb: bytes, stdin: bytes) -> tuple[int, bytes]:
    """Exit status and output. Raises OSError. The input is a memory file: a pipe that both sides wait at cannot hang."""
    config = posix.memfd_create("cni")
    write_all(config, stdin)
    posix.lseek(config, 0, 0)
    out, into = posix.pipe()
    environ = {**posix.environ, b"CNI_COMMAND": verb}
    moves = [(posix.POSIX_SPAWN_DUP2, config, 0), (posix.POSIX_SPAWN_DUP2, into, 1)]
    try:
        pid = posix.posix_spawn(path, [path], environ, file_actions=moves)
    finally:
        posix.close(into)
        posix.close(config)
    output = read_all(out, OUTPUT_BYTES_MAX)
    posix.close(out)
    _, status = posix.waitpid(pid, 0)
    return posix.waitstatus_to_exitcode(status), output
