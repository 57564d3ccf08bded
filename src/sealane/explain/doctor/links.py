"""Causes in links: bridges that do not hear, and whoever configures links by a pattern that matches ours (systemd-networkd,
NetworkManager)."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from sealane.compile.names import BRIDGE_PREFIX, ENDPOINT_PREFIX, network_link
from sealane.explain.doctor.case import HOST_SUBJECT, DiagnosisInput, Finding
from sealane.explain.doctor.evidence import ConfigFile

Section = Mapping[str, list[str]]


class Kind(NamedTuple):
    """A kind of link of ours, as networkd knows it (networkctl's TYPE, and the kernel's kind)."""

    link: str
    type: str
    kind: str


KINDS = (
    Kind(f"{ENDPOINT_PREFIX}000000000000", "ether", "veth"),
    Kind(f"{BRIDGE_PREFIX}000000000000", "bridge", "bridge"),
)
"""Twelve hex digits stand for any."""

PATTERNS = f"{ENDPOINT_PREFIX}* {BRIDGE_PREFIX}*"


def bridge_deaf(case: DiagnosisInput) -> Iterator[Finding]:
    """`bridge fdb flush` takes it, and the kernel makes no other. Of our own bridges the daemon puts it back."""
    deaf = {link.name: link.mac for link in case.host.links if link.is_deaf}
    for network in case.planes:
        name = network_link(network)
        if network.driver == "bridge" and name in deaf:
            yield Finding(
                subject=network.name,
                message=f"its bridge {name} does not know its own MAC {deaf[name]}: nothing goes up to the host, so there is "
                "no way out, no name is answered, and no published port",
                hint=f"bridge fdb add {deaf[name]} dev {name} self permanent",
                level="error",
            )


def link_grabbed(case: DiagnosisInput) -> Iterator[Finding]:
    managers = case.host.managers
    for kind in KINDS:
        found = next((file for file in managers.networkd if _networkd_matches(file.text, kind)), None)
        if found is not None and not _is_unmanaged(found.text):
            yield Finding(
                subject=HOST_SUBJECT,
                message=f"systemd-networkd takes links such as {kind.link[:3]}… for its own: {found.path} matches them, "
                "so it sets their addresses and routes",
                hint=f"/etc/systemd/network/00-sealane.network with [Match] Name={PATTERNS} and [Link] Unmanaged=yes, "
                "then networkctl reload",
                level="warning",
            )
    if managers.network_manager is not None:
        spared = _unmanaged_devices(managers.network_manager)
        left = [kind for kind in KINDS if not any(_spares(word, kind) for word in spared)]
        if left:
            yield Finding(
                subject=HOST_SUBJECT,
                message=f"NetworkManager is not told to leave {' and '.join(f'{k.link[:3]}…' for k in left)} alone",
                hint="/etc/NetworkManager/conf.d/sealane.conf with [keyfile] unmanaged-devices="
                f"interface-name:{ENDPOINT_PREFIX}*;interface-name:{BRIDGE_PREFIX}*, then nmcli general reload",
                level="note",
            )


def _networkd_matches(text: str, kind: Kind) -> bool:
    """systemd.network(5), [Match]: what is given must all hold. By address, path or property nothing of ours is meant."""
    match = _section(text, "Match")
    if match is None or not match.keys() <= {"Name", "Type", "Kind", "Driver"}:
        return False
    values = {"Name": kind.link, "Type": kind.type, "Kind": kind.kind, "Driver": kind.kind}
    return all(_globs(words, values[key]) for key, words in match.items())


def _globs(words: Iterable[str], value: str) -> bool:
    patterns = list(words)
    if patterns and patterns[0].startswith("!"):
        return not any(fnmatchcase(value, pattern.lstrip("!")) for pattern in patterns)
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _is_unmanaged(text: str) -> bool:
    words = (_section(text, "Link") or {}).get("Unmanaged", [])
    return bool(words) and words[-1].lower() in {"yes", "true", "1", "on"}


def _unmanaged_devices(files: Iterable[ConfigFile]) -> list[str]:
    """NetworkManager.conf(5), [keyfile] unmanaged-devices: a later file's takes the place of an earlier one's."""
    found: list[str] = []
    for file in files:
        section = _section(file.text, "keyfile") or {}
        for key, words in section.items():
            if key.rstrip("+") == "unmanaged-devices":
                given = [word for text in words for word in text.replace(",", ";").split(";") if word]
                found = [*found, *given] if key.endswith("+") else given
    return found


def _spares(word: str, kind: Kind) -> bool:
    what, _, pattern = word.partition(":")
    if what == "*":
        return True
    if what == "type":
        return pattern == kind.kind
    # `=` is a literal name, which none of ours is known by; `~` is a pattern, as nothing is.
    return what == "interface-name" and fnmatchcase(kind.link, pattern.removeprefix("~"))


def _section(text: str, desired: str) -> Section | None:
    """A section's words by key; an empty value takes back what was given before. None: there is no such section."""
    found: dict[str, list[str]] | None = None
    current = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = line[1:-1].strip()
            if current == desired and found is None:
                found = {}
        elif current == desired and found is not None and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            words = value.split()
            found[key.strip()] = [*found.get(key.strip(), []), *words] if words else []
    return found
