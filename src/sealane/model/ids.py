"""Names and ids: their grammar, in one place."""

import re
from typing import NewType

from sealane.model.net import ParseError

NetworkId = NewType("NetworkId", str)
SandboxId = NewType("SandboxId", str)
EndpointId = NewType("EndpointId", str)

NAME_MAX = 63
"""Names answer DNS questions, so a label's length bounds them (RFC 1035 §2.3.4)."""

LINK_NAME_MAX = 15
"""IFNAMSIZ less its NUL (linux/if.h)."""

SYSCTL_VALUE = re.compile(r"[a-zA-Z0-9_., -]{1,128}")
"""Numbers, lists of ranges (`8080,9000-9010`), names of algorithms."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


POD_NAME_MAX = 253
"""Of a Kubernetes pod, whose name need not be one label (RFC 1123 subdomain); DNS has only those that it can carry."""


def parse_name(text: str, most: int = NAME_MAX) -> str:
    """`most` characters. Raises ParseError."""
    if not _NAME.fullmatch(text):
        raise ParseError(
            f"{text!r}: a name begins with a letter or digit and goes on with those, `_`, `.` or `-`"
        )
    if len(text) > most:
        raise ParseError(f"{text!r} has {len(text)} characters: a name has at most {most}")
    return text


def name_in(namespace: str, name: str) -> str:
    """`shop/web-0`: a name that others may have too, in other Kubernetes namespaces. Raises ParseError for either."""
    return f"{parse_name(namespace)}/{parse_name(name, POD_NAME_MAX)}" if namespace else parse_name(name)


def bare_name(name: str) -> str:
    """Without its Kubernetes namespace."""
    return name.rpartition("/")[2]


def namespace_of(name: str) -> str:
    """Kubernetes namespace of a name; empty: none."""
    return name.rpartition("/")[0]


def parse_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ParseError(f"{text!r} is not an id: 1 to 128 letters, digits, `_`, `.` or `-`")
    return text


NO_LINKS = frozenset({"all", "default"})
"""Under these names are the settings of all links (`sysctl_dev_name_is_allowed`, net/ipv4/devinet.c)."""


def parse_link_name(text: str) -> str:
    """A kernel interface name, by `dev_valid_name` (net/core/dev.c), and ASCII only."""
    if not text.isascii() or not 1 <= len(text) <= LINK_NAME_MAX or text in {".", ".."}:
        raise ParseError(f"{text!r}: a link name has 1 to {LINK_NAME_MAX} ASCII characters")
    if re.search(r"[\s/:\x00-\x20\x7f%]", text):
        raise ParseError(f"{text!r}: a link name has no `/`, `:`, `%`, space or control character")
    if text in NO_LINKS:
        raise ParseError(f"{text}: the kernel takes no link of this name")
    return text
