"""A lab file's text to records. All problems are found in one run, each with its line and field.

name: demo                       # optional
underlay:
  kind: segment                  # or routed
  ipv4: 192.0.2.0/24
  ipv6: 2001:db8:1::/64
  mtu: 1500                      # of every uplink; loss and latency likewise
etcd: {members: 3}               # 0, 1 or 3
daemon_arguments: [--no-dns]     # of every daemon
hosts:                           # or a number, or a list of names
  h1:
  h2: {mtu: 1400, loss: 1%, daemon_arguments: [--log-level, debug]}
"""

import ipaddress
import re

from sealane.compose.cursor import Cursor, Fields, parse_whole
from sealane.compose.problems import BadValue, ComposeError, Problem, Report, shown
from sealane.compose.yaml import Mapping, Node, Scalar, YamlError, read_yaml
from sealane.lab.plan import PlanError, default_prefix, host_subnets
from sealane.lab.spec import (
    ETCD_MEMBERS,
    LATENCY_MAX_MS,
    LOSS_UNITS,
    MAX_ARGUMENTS,
    MAX_HOSTS,
    MTU_MAX,
    MTU_MIN,
    EtcdSpec,
    HostSpec,
    LabSpec,
    Underlay,
    UnderlayKind,
    Uplink,
)

SOURCE = "lab file"
PLACEHOLDERS = frozenset({"etcd", "host", "ipv4", "ipv6"})

_LAB_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_HOST_NAME = re.compile(r"[a-z]([a-z0-9-]{0,13}[a-z0-9])?")
_RESERVED = re.compile(r"lo|underlay|hosts|etcd[0-9]*")
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?%")
_MILLISECONDS = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)ms")
_PLACEHOLDER = re.compile(r"\{([a-z0-9]+)\}")


def read_lab(text: str, *, source: str = SOURCE) -> LabSpec:
    """Raises ComposeError with every problem of the file."""
    report = Report()
    try:
        root = _root(text)
    except YamlError as error:
        problem = Problem(path="", line=error.line, message=error.message, hint=error.hint)
        raise ComposeError((problem,), source=source) from error
    lab = _lab(Cursor(root, (), report))
    if problems := report.problems():
        raise ComposeError(problems, source=source)
    return lab


def parse_lab_name(text: str) -> str:
    """Raises BadValue."""
    if not _LAB_NAME.fullmatch(text):
        raise BadValue(
            f"{shown(text)} is not a lab's name",
            "write up to 32 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit",
        )
    return text


def _root(text: str) -> Node:
    root = read_yaml(text)
    if root is None:
        raise YamlError("the file is empty", "write hosts: 3", None)
    if not isinstance(root, Mapping):
        raise YamlError("the file is not a mapping", "begin it with hosts:", root.line)
    return root


def _lab(root: Cursor) -> LabSpec:
    fields = Fields(root)
    name = fields.parse("name", parse_lab_name, "")
    underlay, defaults = fields.read("underlay", _underlay, (Underlay(), Uplink()))
    etcd = fields.read("etcd", _etcd, EtcdSpec())
    arguments = fields.read("daemon_arguments", _arguments, ())
    for_all = fields.find("daemon_arguments")
    if for_all is not None:
        _check_placeholders(for_all, etcd)
    place = fields.find("hosts")
    hosts: tuple[HostSpec, ...] = ()
    if place is None:
        root.fail("no hosts", "write hosts: 3")
    else:
        hosts = _hosts(place, defaults, arguments, etcd)
    fields.finish()
    lab = LabSpec(name=name, underlay=underlay, etcd=etcd, hosts=hosts)
    _check_prefixes(root, lab)
    return lab


# --- the underlay and its uplinks


def _underlay(cursor: Cursor) -> tuple[Underlay, Uplink]:
    fields = Fields(cursor)
    kind: UnderlayKind = fields.parse("kind", _kind, "segment")
    ipv4 = fields.parse("ipv4", lambda text: _prefix(text, 4), "")
    ipv6 = fields.parse("ipv6", lambda text: _prefix(text, 6), "")
    uplink = _uplink(fields, Uplink())
    fields.finish()
    return Underlay(kind=kind, ipv4=ipv4, ipv6=ipv6), uplink


def _uplink(fields: Fields, defaults: Uplink) -> Uplink:
    return Uplink(
        mtu=fields.parse("mtu", _mtu, defaults.mtu),
        loss=fields.parse("loss", _loss, defaults.loss),
        latency_ms=fields.parse("latency", _latency, defaults.latency_ms),
    )


def _kind(text: str) -> UnderlayKind:
    if text == "segment":
        return "segment"
    if text == "routed":
        return "routed"
    raise BadValue(f"{shown(text)} is not a kind of underlay", "write segment or routed")


def _prefix(text: str, version: int) -> str:
    example = "192.0.2.0/24" if version == 4 else "2001:db8:1::/64"
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise BadValue(f"{shown(text)} is not a prefix", f"write one as {example}") from error
    if network.version != version:
        raise BadValue(f"{shown(text)} is not IPv{version}", f"write one as {example}")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise BadValue(f"{shown(text)} cannot be an underlay", f"write one as {example}")
    return str(network)


def _mtu(text: str) -> int:
    return parse_whole(text, MTU_MIN, MTU_MAX)


def _loss(text: str) -> int:
    """`1%`, `0.25%`: packets of LOSS_UNITS."""
    found = _PERCENT.fullmatch(text)
    units = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")) if found else LOSS_UNITS + 1
    if units > LOSS_UNITS:
        raise BadValue(f"{shown(text)} is not a loss", "write a percentage from 0% to 100%, as 1% or 0.25%")
    return units


def _latency(text: str) -> float:
    found = _MILLISECONDS.fullmatch(text)
    value = float(found[1]) if found else LATENCY_MAX_MS + 1.0
    if value > LATENCY_MAX_MS:
        raise BadValue(f"{shown(text)} is not a latency", f"write it as 20ms, at most {LATENCY_MAX_MS}ms")
    return value


def _check_prefixes(root: Cursor, lab: LabSpec) -> None:
    """Whether the prefixes have room for all; the wrong one is named where the file has it."""
    for version, field in ((4, "ipv4"), (6, "ipv6")):
        prefix = default_prefix(lab.underlay, version)
        try:
            host_subnets(lab.underlay.kind, prefix, len(lab.hosts) + lab.etcd.members)
        except PlanError as error:
            root.at("underlay", field).fail(str(error), error.hint)


# --- etcd


def _etcd(cursor: Cursor) -> EtcdSpec:
    fields = Fields(cursor)
    members = fields.parse("members", _members, 1)
    arguments = fields.read("arguments", _arguments, ())
    fields.finish()
    return EtcdSpec(members=members, arguments=arguments)


def _members(text: str) -> int:
    if text not in {str(number) for number in ETCD_MEMBERS}:
        raise BadValue(f"{shown(text)} is not a number of members", "write 0, 1 or 3")
    return int(text)


# --- hosts


def _hosts(
    cursor: Cursor, defaults: Uplink, arguments: tuple[str, ...], etcd: EtcdSpec
) -> tuple[HostSpec, ...]:
    if isinstance(cursor.node, Scalar):
        count = cursor.whole(1, MAX_HOSTS) or 0
        names = tuple(f"h{number + 1}" for number in range(count))
    elif cursor.is_sequence:
        names = cursor.each_text(_host_name)
    else:
        hosts = [_host(child, defaults, arguments, etcd) for child in cursor.entries().values()]
        return _bounded(cursor, tuple(host for host in hosts if host is not None))
    return _bounded(
        cursor, tuple(HostSpec(name=name, uplink=defaults, daemon_arguments=arguments) for name in names)
    )


def _bounded(cursor: Cursor, hosts: tuple[HostSpec, ...]) -> tuple[HostSpec, ...]:
    if len(hosts) > MAX_HOSTS:
        cursor.fail(f"{len(hosts)} hosts", f"a lab has at most {MAX_HOSTS}")
    elif not hosts and not cursor.report.problems():
        cursor.fail("no hosts", "write hosts: 3")
    return hosts[:MAX_HOSTS]


def _host(cursor: Cursor, defaults: Uplink, arguments: tuple[str, ...], etcd: EtcdSpec) -> HostSpec | None:
    name = cursor.parse_key(_host_name)
    if cursor.is_null:
        return None if name is None else HostSpec(name=name, uplink=defaults, daemon_arguments=arguments)
    fields = Fields(cursor)
    uplink = _uplink(fields, defaults)
    own = fields.read("daemon_arguments", _arguments, ())
    if (place := fields.find("daemon_arguments")) is not None:
        _check_placeholders(place, etcd)
    fields.finish()
    return None if name is None else HostSpec(name=name, uplink=uplink, daemon_arguments=arguments + own)


def _host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise BadValue(
            f"{shown(text)} is not a host's name",
            "write up to 15 of a-z, 0-9 and '-', beginning with a letter and ending with a letter or digit",
        )
    if _RESERVED.fullmatch(text):
        raise BadValue(f"{text} is a reserved name", "write another one, as h1")
    return text


def _arguments(cursor: Cursor) -> tuple[str, ...]:
    texts = cursor.each(Cursor.text)
    if len(texts) > MAX_ARGUMENTS:
        cursor.fail(f"{len(texts)} arguments", f"write at most {MAX_ARGUMENTS}")
    return texts[:MAX_ARGUMENTS]


def _check_placeholders(cursor: Cursor, etcd: EtcdSpec) -> None:
    for item in cursor.items() if cursor.is_sequence else ():
        text = item.node.text if isinstance(item.node, Scalar) else ""
        for word in _PLACEHOLDER.findall(text):
            if word not in PLACEHOLDERS:
                known = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
                item.fail(f"unknown placeholder {shown(f'{{{word}}}')}", f"write one of {known}")
            elif word == "etcd" and not etcd.members:
                item.fail("{etcd} stands for members, and there are none", "write etcd: {members: 1}")
