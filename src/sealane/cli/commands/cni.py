"""`sealane cni …`: puts the CNI executable and a conflist where runtimes look for them. Asks nothing of the daemon."""

import json
import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace

import sealane
from sealane.cli.context import Context, UsageError
from sealane.cli.parser import describe
from sealane.cli.registry import Verb

BIN_DIR = "/opt/cni/bin"
CONF_DIR = "/etc/cni/net.d"
EXECUTABLE = "sealane"
CONFLIST = "10-sealane.conflist"
NETWORK = "pods"
MARK = "# CNI plugin of sealane, written by `sealane cni install`."
SHEBANG_MAX = 126
"""The kernel reads 127 bytes of the first line before Linux 5.1, and 255 since (BINPRM_BUF_SIZE)."""
CAPABILITIES = ("aliases", "bandwidth", "cgroupPath", "dns", "ipRanges", "ips", "mac", "portMappings")


def configure_install(parser: ArgumentParser) -> None:
    describe(
        parser,
        "The executable asks the daemon at --socket. Installing again changes nothing; a conflist that differs is\n"
        "kept unless --replace is given.",
        ["sealane cni install", "sealane cni install --subnet 10.88.0.0/16 --subnet fd00:88::/64"],
    )
    _add_directories(parser)
    parser.add_argument(
        "--name", metavar="NETWORK", default=NETWORK, help=f"of the network (default: {NETWORK})"
    )
    parser.add_argument(
        "--subnet",
        metavar="PREFIX",
        action="append",
        default=[],
        help="of the network, one a family (default: from the daemon's pools)",
    )
    parser.add_argument("--replace", action="store_true", help="write over a conflist that differs")


def install(context: Context, arguments: Namespace) -> int:
    executable = os.path.join(arguments.bin_dir, EXECUTABLE)
    conflist = os.path.join(arguments.conf_dir, CONFLIST)
    config = _conflist(arguments.name, arguments.subnet)
    there = _read(conflist)
    if there not in {None, config} and not arguments.replace:
        raise UsageError(
            f"{conflist} is there already, and differs",
            field="--replace",
            cure="give --replace to write over it, or keep it and leave these options out",
        )
    script = _script(context.socket)
    present = _read(executable)
    if present is not None and MARK not in present:
        raise UsageError(
            f"{executable} is somebody else's", field="--bin-dir", cure="choose another directory"
        )
    # The executable first: from the moment that the conflist is there runtimes call it.
    for path, text, before, mode in ((executable, script, present, 0o755), (conflist, config, there, 0o644)):
        _say(context, path, "unchanged" if before == text else "written")
        if before != text:
            _replace(path, text, mode)
    return 0


def configure_uninstall(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Removes what `install` wrote, a conflist only if nobody has changed it since. Pods and their networks stay.",
        ["sealane cni uninstall"],
    )
    _add_directories(parser)


def uninstall(context: Context, arguments: Namespace) -> int:
    """The conflist first: without its executable it would fail every pod."""
    conflist = os.path.join(arguments.conf_dir, CONFLIST)
    executable = os.path.join(arguments.bin_dir, EXECUTABLE)
    for path, is_ours in ((conflist, _is_plain), (executable, _is_marked)):
        text = _read(path)
        if text is None:
            _say(context, path, "not there")
        elif is_ours(text):
            os.unlink(path)
            _say(context, path, "removed")
        else:
            _say(context, path, "kept: it is not as `sealane cni install` wrote it")
    return 0


def _add_directories(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--bin-dir",
        metavar="DIR",
        default=BIN_DIR,
        help=f"where runtimes look for plugins (default: {BIN_DIR})",
    )
    parser.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=CONF_DIR,
        help=f"where they look for networks (default: {CONF_DIR})",
    )


def _say(context: Context, path: str, what: str) -> None:
    if context.output.as_json:
        context.output.document({"path": path, "state": what})
    else:
        context.output.line(f"{path}: {what}")


def _conflist(name: str, subnets: list[str]) -> str:
    """`cniVersion` is what runtimes of before 2024 read; later ones take the highest of `cniVersions` that they know."""
    plugin: dict[str, object] = {"type": EXECUTABLE, "capabilities": dict.fromkeys(CAPABILITIES, True)}
    if subnets:
        plugin["ipam"] = {"type": EXECUTABLE, "ranges": [[{"subnet": subnet}] for subnet in subnets]}
    document = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": name, "plugins": [plugin]}
    return f"{json.dumps(document, indent=2)}\n"


def _is_plain(text: str) -> bool:
    """Whether install writes just this for the network's name and subnets."""
    try:
        document = json.loads(text)
        ranges = document["plugins"][0].get("ipam", {}).get("ranges", [])
        return text == _conflist(document["name"], [alternatives[0]["subnet"] for alternatives in ranges])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False


def _is_marked(text: str) -> bool:
    return MARK in text


def _script(socket: str) -> str:
    """Isolated and without `site`: half of Python's start, and nothing of the caller's environment decides what runs."""
    # In a virtual environment: the interpreter that it was made of, which need not look for it.
    python = getattr(sys, "_base_executable", sys.executable)
    if len(python) > SHEBANG_MAX - len("#! -IS") or any(sign.isspace() for sign in python):
        raise UsageError(
            f"{python} cannot be the first line of a script", cure="install Python under a short path"
        )
    place = os.path.dirname(os.path.dirname(os.path.abspath(sealane.__file__)))
    return (
        f"#!{python} -IS\n{MARK}\n"
        f"import sys\nsys.path.insert(0, {place!r})\n"
        f"from sealane.programs.cni.main import main\nsys.exit(main({os.path.abspath(socket)!r}))\n"
    )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _replace(path: str, text: str, mode: int) -> None:
    """In one step: a runtime reads the old file or the new one."""
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        # Hidden, and of no ending that libcni reads a configuration by.
        descriptor, temporary = tempfile.mkstemp(prefix=".sealane-", dir=directory)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
                os.fchmod(descriptor, mode)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", cure="become root") from error


VERBS = {"install": Verb(configure_install, install), "uninstall": Verb(configure_uninstall, uninstall)}
