"""How a link shows whose it is, in one place."""

import re

from sealane.kernel.objects import GROUP_DOOMED, GROUP_LIVE, is_network_group
from sealane.linux.netlink.link import RawLink

GROUPS = frozenset({GROUP_LIVE, GROUP_DOOMED})
ANY_INSTANCE = "sealane/"
TRACE_TABLES = "sealane-trace-"
"""The beginning of names of tables that last as long as a trace (`tracing.rules`)."""


_ALIAS = re.compile(rf"{ANY_INSTANCE}([0-9a-f]{{6}})/.+")


def alias_prefix(instance: str) -> str:
    """Of `compile.names.alias`."""
    return f"{ANY_INSTANCE}{instance}/"


def instance_of(alias: str) -> str:
    """Whose mark it is; empty: nobody's."""
    found = _ALIAS.fullmatch(alias)
    return found[1] if found else ""


def is_ours(raw: RawLink, prefix: str) -> bool:
    """By its alias; or by its group, in which it is from its creation on, so before it has its alias, and after
    somebody has given it another. Another installation's is not."""
    if raw.alias.startswith(prefix):
        return True
    return (raw.group in GROUPS or is_network_group(raw.group)) and not raw.alias.startswith(ANY_INSTANCE)
