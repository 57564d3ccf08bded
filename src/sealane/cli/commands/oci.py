"""`sealane oci …`: puts the OCI hook where podman and CRI-O look for it, or says what a config.json needs. Asks nothing
of the daemon."""

import json
import os
from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context, UsageError
from sealane.cli.install import check_ours, program, read, remove, say, write
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.programs.oci.main import STAGES

BIN = "/usr/libexec/sealane/oci-hook"
HOOKS_DIR = "/usr/share/containers/oci/hooks.d"
MARK = "# OCI hook of sealane, written by `sealane oci install`."
TIMEOUT_S = 60
"""Seconds: as long as the hook waits for the daemon."""
OURS = r"^sealane\."
"""Annotations: any of ours, so that a misspelt one is refused by name."""


def configure_install(parser: ArgumentParser) -> None:
    describe(
        parser,
        "The hook asks the daemon at --socket. podman and CRI-O then call it for every container that has an annotation\n"
        "sealane.…; for runc and crun themselves `sealane oci hooks` prints what a config.json needs. Where somebody has\n"
        "changed a hook file nothing is written.",
        ["sealane oci install", "podman run --network none --annotation sealane.networks=front …"],
    )
    _add_bin(parser)
    _add_hooks_dir(parser)


def install(context: Context, arguments: Namespace) -> int:
    executable = os.path.abspath(arguments.bin)
    check_ours(executable, MARK, "--bin")
    for stage in STAGES:
        path = _hook_path(arguments.hooks_dir, stage)
        text = read(path)
        if text is not None and not _is_plain(text):
            raise UsageError(
                f"{path} is not as `sealane oci install` wrote it",
                field="--hooks-dir",
                hint="keep your changes in a file of another name, and remove this one",
            )
    # The executable first: from the moment that a hook is there every container may call it.
    write(context, executable, program("oci", MARK, context.socket), 0o755)
    for stage in STAGES:
        write(context, _hook_path(arguments.hooks_dir, stage), _hook(executable, stage), 0o644)
    return 0


def configure_uninstall(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Removes what `install` wrote, and nothing that somebody has changed since. Containers and their networks stay;\n"
        "those that run have to be detached by hand then, or are found dead by the daemon.",
        ["sealane oci uninstall"],
    )
    _add_bin(parser)
    _add_hooks_dir(parser)


def uninstall(context: Context, arguments: Namespace) -> int:
    """The executable last: without it a hook would fail every container."""
    for stage in STAGES:
        remove(context, _hook_path(arguments.hooks_dir, stage), _is_plain, "oci")
    executable = os.path.abspath(arguments.bin)
    named = [
        path
        for path in (_hook_path(arguments.hooks_dir, stage) for stage in STAGES)
        if executable in (read(path) or "")
    ]
    if named:
        say(context, executable, f"kept: {named[0]} names it")
    else:
        remove(context, executable, lambda text: MARK in text, "oci")
    return 0


def configure_hooks(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Prints the `hooks` object of a config.json. Writes nothing.",
        ["""sealane oci hooks | jq -s '.[0] * {hooks: .[1]}' config.json -"""],
    )
    _add_bin(parser)


def hooks(context: Context, arguments: Namespace) -> int:
    executable = os.path.abspath(arguments.bin)
    document = {stage: [_entry(executable, stage)] for stage in STAGES}
    context.output.raw(f"{json.dumps(document, indent=2)}\n")
    return 0


def _add_bin(parser: ArgumentParser) -> None:
    parser.add_argument("--bin", metavar="PATH", default=BIN, help=f"the executable (default: {BIN})")


def _add_hooks_dir(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--hooks-dir",
        metavar="DIR",
        default=HOOKS_DIR,
        help=f"where podman and CRI-O look for hooks (default: {HOOKS_DIR})",
    )


def _hook_path(directory: str, stage: str) -> str:
    """A file a stage: the stage is an argument, and oci-hooks(5) has one list of arguments a file."""
    return os.path.join(directory, f"50-sealane-{stage}.json")


def _entry(executable: str, stage: str) -> dict[str, object]:
    return {"path": executable, "args": [os.path.basename(executable), stage], "timeout": TIMEOUT_S}


def _hook(executable: str, stage: str) -> str:
    document = {
        "version": "1.0.0",
        "hook": _entry(executable, stage),
        "when": {"annotations": {OURS: ".*"}},
        "stages": [stage],
    }
    return f"{json.dumps(document, indent=2)}\n"


def _is_plain(text: str) -> bool:
    """Whether install writes just this, for some place of the executable."""
    try:
        document = json.loads(text)
        return text == _hook(document["hook"]["path"], document["stages"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return False


VERBS = {
    "install": Verb(configure_install, install),
    "uninstall": Verb(configure_uninstall, uninstall),
    "hooks": Verb(configure_hooks, hooks),
}
