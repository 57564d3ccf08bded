"""Compose text to a Project. Pure: the environment, the directory and the reading of files are arguments."""

from collections.abc import Callable, Mapping

from sealane.compose import unsupported
from sealane.compose.attachments import DEFAULT_NETWORK
from sealane.compose.check import Sections, check_project
from sealane.compose.context import Context
from sealane.compose.cursor import Cursor, Fields
from sealane.compose.interpolate import interpolate_tree
from sealane.compose.networks import read_network
from sealane.compose.problems import ComposeError, Problem, Report
from sealane.compose.schema import ComposeNetwork, Project
from sealane.compose.services import ServiceDraft, read_service
from sealane.compose.values import parse_project_name
from sealane.compose.yaml import Mapping as MappingNode
from sealane.compose.yaml import Node, YamlError, read_yaml

MAX_SERVICES = 1000
MAX_NETWORKS = 1000


def parse_project(
    text: str,
    *,
    name: str,
    environ: Mapping[str, str],
    directory: str,
    read_file: Callable[[str], str] | None = None,
    source: str = "compose file",
) -> Project:
    """The project that `text` describes. Raises ComposeError with every problem of the file.

    `name` is the project's unless the file has a `name:`. `directory` is absolute. `read_file` gives the text of an
    `env_file` and may raise OSError or ValueError; without it an `env_file` is a problem.
    """
    report = Report()
    root = _read_tree(text, environ, report, source)
    context = Context(environ=environ, directory=directory, read_file=read_file)
    fields = Fields(Cursor(root, (), report))
    project_name = fields.parse("name", parse_project_name, name)
    version = fields.find("version")
    if version is not None:
        version.warn("version is obsolete and means nothing; remove it")
    networks = fields.read("networks", _read_networks, ())
    builder = fields.read("services", lambda cursor: _read_services(cursor, context), ())
    fields.finish(unsupported.TOP_LEVEL)
    if not networks and not builder and not report.problems():
        fields.cursor.fail("no services and no networks", "write services:")
    networks = _with_default(networks, builder)
    by_name = {network.name: network for network in networks}
    check_project(Sections(root=fields.cursor, networks=by_name, builder=builder))
    if problems := report.problems():
        raise ComposeError(problems, source=source)
    return Project(
        name=project_name,
        networks=networks,
        services=tuple(draft.service for draft in builder),
        warnings=report.warnings(),
    )


def _read_tree(text: str, environ: Mapping[str, str], report: Report, source: str) -> Node:
    try:
        return interpolate_tree(_read_root(text), environ, report)
    except YamlError as error:
        problem = Problem(path="", line=error.line, message=error.message, hint=error.hint)
        raise ComposeError((problem,), source=source) from error


def _read_root(text: str) -> Node:
    root = read_yaml(text)
    if root is None:
        raise YamlError("the file is empty", "write services:", None)
    if not isinstance(root, MappingNode):
        raise YamlError("the file is not a mapping", "begin it with services:", root.line)
    return root


def _read_networks(cursor: Cursor) -> tuple[ComposeNetwork, ...]:
    networks = (read_network(child) for child in _bounded(cursor, MAX_NETWORKS))
    return tuple(network for network in networks if network is not None)


def _read_services(cursor: Cursor, context: Context) -> tuple[ServiceDraft, ...]:
    builder = (read_service(child, context) for child in _bounded(cursor, MAX_SERVICES))
    return tuple(draft for draft in builder if draft is not None)


def _bounded(cursor: Cursor, maximum: int) -> list[Cursor]:
    children = list(cursor.entries().values())
    if len(children) > maximum:
        cursor.fail(f"{len(children)} {cursor.key}", f"split the project; a file has at most {maximum}")
    return children[:maximum]


def _with_default(
    networks: tuple[ComposeNetwork, ...], builder: tuple[ServiceDraft, ...]
) -> tuple[ComposeNetwork, ...]:
    """A service that names no network is on `default`, which need not be defined."""
    used = any(
        attachment.network == DEFAULT_NETWORK for draft in builder for attachment in draft.service.attachments
    )
    if not used or any(network.name == DEFAULT_NETWORK for network in networks):
        return networks
    return (*networks, ComposeNetwork(name=DEFAULT_NETWORK))
