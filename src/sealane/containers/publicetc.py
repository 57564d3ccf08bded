"""What a container with the host's root has of the host's /etc: copies of files that its programs look up, and of these
only what everybody may read. No secret is among them, and what comes to the host's /etc later is not seen."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator

PUBLIC = (
    # Names and numbers: of users, services, protocols.
    "passwd", "group", "nsswitch.conf", "host.conf", "gai.conf", "services", "protocols", "rpc", "networks", "ethertypes",
    "shells", "login.defs",
    # The loader, and what stands for which program.
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "alternatives",
    # Whom to trust; the keys are elsewhere (ssl/private, pki/tls/private: only root may read them).
    "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ca-certificates", "ca-certificates.conf", "pki/tls/certs", "pki/tls/cert.pem",
    "pki/tls/openssl.cnf", "pki/ca-trust", "crypto-policies",
    # Time, place and language.
    "localtime", "timezone", "locale.alias", "locale.conf", "locale.gen", "default/locale", "vconsole.conf",
    # What system this is.
    "os-release", "debian_version", "lsb-release", "redhat-release", "system-release", "alpine-release", "mtab",
    # Shells and languages.
    "profile", "profile.d", "bash.bashrc", "bashrc", "inputrc", "terminfo", "mime.types", "magic", "python3", "python3.*", "perl",
    "java-*", "gitconfig", "fonts",
)  # fmt: skip
"""Below /etc, files or whole folders; `*` ends a name."""
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 10_000
# Gone or another since it was listed; named twice above; not for this user to read.
_PASSED_OVER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.EACCES, errno.EPERM})


def copy_etc(source: str, target: str, *, leaving_out: Collection[str]) -> None:
    """Make `target` anew. Files that only some may read, that are no files, that are too large or that come after MAX_ENTRIES
    are left out, and so is what vanishes meanwhile. `leaving_out`: names that the caller makes."""
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target, mode=0o755)
    left = MAX_ENTRIES
    for name in _found(source):
        if name not in leaving_out:
            os.makedirs(os.path.dirname(f"{target}/{name}"), mode=0o755, exist_ok=True)
            left = _copy(f"{source}/{name}", f"{target}/{name}", left)


def _found(source: str) -> Iterator[str]:
    present = os.listdir(source)
    for name in PUBLIC:
        if name.endswith("*"):
            yield from sorted(each for each in present if each.startswith(name[:-1]))
        elif name.partition("/")[0] in present:
            yield name


def _copy(source: str, target: str, left: int) -> int:
    """How many entries may still be made."""
    try:
        found = os.lstat(source)
        if left <= 0:
            return 0
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(found.st_mode):
            _copy_file(source, target)
        elif stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IXOTH:
            os.makedirs(target, mode=0o755, exist_ok=True)
            for name in sorted(os.listdir(source)):
                left = _copy(f"{source}/{name}", f"{target}/{name}", left)
    except OSError as error:
        if error.errno not in _PASSED_OVER:
            raise
        return left
    return left - 1


def _copy_file(source: str, target: str) -> None:
    """Judged by what was opened: it may be another by now than what was looked at."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        is_public = stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IROTH
        if not is_public or found.st_size > MAX_FILE_BYTES:
            return
        mode = 0o755 if found.st_mode & stat.S_IXOTH else 0o644
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(made, "wb") as copy:
            os.fchmod(made, mode)
            copy.write(file.read(MAX_FILE_BYTES))
