"""Files that the command line names, as manifests: a compose file, or a manifest itself in YAML or JSON.

    networks:
      - {name: front, subnets: [{prefix: 10.1.0.0/24}]}
    attachments:
      - {sandbox: /run/netns/lab, network: front, addresses: [10.1.0.7]}

A manifest's keys and values are those of the API (`sealane.wire.Manifest`). Both kinds are read by the compose reader's
YAML, so that the same bounds hold.
"""

import os
import re
import sys
from typing import Any

import msgspec

from sealane.cli.context import UsageError
from sealane.cli.manifest import ManifestError, manifest_of
from sealane.cli.output import counted
from sealane.compose.load import load, read_text
from sealane.compose.parse import parse_project
from sealane.compose.problems import ComposeError
from sealane.compose.schema import Project
from sealane.compose.yaml import MAX_BYTES, Mapping, Node, Scalar, Sequence, YamlError, read_yaml
from sealane.wire.invalid import wrong
from sealane.wire.requests import Manifest

STDIN = "-"
_LISTS = ("networks", "containers", "attachments")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_WORDS = {"true": True, "false": False}


def load_project(path: str, name: str | None) -> Project:
    """A compose file, or the directory that holds one; `-` is stdin. Raises UsageError with all of its problems."""
    if path == STDIN:
        return _project_of(read_named(path), name)
    try:
        return load(path, name=name)
    except ComposeError as error:
        raise compose_usage_error(error) from error


def project_manifest(project: Project) -> Manifest:
    try:
        return manifest_of(project)
    except ManifestError as error:
        raise UsageError(error.message, field=error.path, hint=error.hint) from error


def load_manifest(path: str, name: str | None) -> tuple[Manifest, tuple[str, ...]]:
    """Of either kind, and the warnings of a compose file."""
    if path != STDIN and os.path.isdir(path):
        project = load_project(path, name)
        return project_manifest(project), project.warnings
    text = read_named(path)
    try:
        root = read_yaml(text)
    except YamlError as error:
        where = f"{path} line {error.line}" if error.line is not None else path
        raise UsageError(f"{where}: {error.message}", field="--file", hint=error.hint) from error
    if isinstance(root, Mapping) and _is_native(root):
        return _native(root), ()
    project = _project_of(text, name) if path == STDIN else load_project(path, name)
    return project_manifest(project), project.warnings


def _project_of(text: str, name: str | None) -> Project:
    """Of stdin: in the current directory, which gives the name too."""
    directory = os.getcwd()
    try:
        return parse_project(
            text, name=name or _directory_name(directory), environ=os.environ, directory=directory
        )
    except ComposeError as error:
        raise compose_usage_error(error) from error


def _directory_name(directory: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "", os.path.basename(directory).lower()).lstrip("_-")[:63] or "default"


def read_named(path: str, *, field: str = "--file") -> str:
    """Text of a file, or with `-` of stdin. Raises UsageError."""
    try:
        if path != STDIN:
            return read_text(path)
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", field=field, hint="name a readable file"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is no text: {error}", field=field, hint="save it as UTF-8") from error


def compose_usage_error(error: ComposeError) -> UsageError:
    """With all problems of the file, each at its line and field."""
    problems = [
        {
            "code": "invalid",
            "field": ": ".join(
                [*(() if problem.line is None else (f"line {problem.line}",)), *filter(None, [problem.path])]
            ),
            "message": problem.message,
            "hint": problem.hint,
        }
        for problem in error.problems
    ]
    return UsageError(f"{error.source}: {counted(len(problems), 'problem')}", problems=problems)


# --- manifests


def _is_native(root: Mapping) -> bool:
    """A compose file has services, or networks by name; a manifest has lists, and may have a project."""
    entries = {key.text: value for key, value in root.entries}
    has_lists = any(isinstance(entries.get(key), Sequence) for key in _LISTS)
    return not entries or ("services" not in entries and (has_lists or "project" in entries))


def _native(root: Mapping) -> Manifest:
    try:
        return msgspec.json.decode(msgspec.json.encode(_plain(root)), type=Manifest)
    except msgspec.ValidationError as error:
        message, field, hint = wrong(error, Manifest)
        raise UsageError(message, field=field, hint=hint) from error


def _plain(node: Node) -> Any:
    """YAML 1.2's core schema: quoted scalars are texts, plain ones may be null, true, false or a number."""
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    if isinstance(node, Mapping):
        return {key.text: _plain(value) for key, value in node.entries}
    return _scalar(node)


def _scalar(node: Scalar) -> Any:
    if node.is_null:
        return None
    if not node.plain:
        return node.text
    if node.text in _WORDS:
        return _WORDS[node.text]
    if _WHOLE.fullmatch(node.text):
        return int(node.text)
    return float(node.text) if _FRACTION.fullmatch(node.text) else node.text
