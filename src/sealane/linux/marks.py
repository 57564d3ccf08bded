"""How a link shows whose it is, in one place."""

from sealane.kernel.objects import GROUP_DOOMED, GROUP_LIVE, is_network_group
from sealane.linux.netlink.link import RawLink

GROUPS = frozenset({GROUP_LIVE, GROUP_DOOMED})
ANY_INSTANCE = "sealane/"
TRACE_TABLES = "sealane-trace-"
"""The beginning of names of tables that last as long as a trace (`tracing.rules`)."""


def alias_prefix(instance: str) -> str:
    return f"{ANY_INSTANCE}{instance}/"


def is_ours(raw: RawLink, prefix: str) -> bool:
    """By its alias; or by its group, in which it is from its creation on, so before it has its alias, and after
    somebody has given it another. Another installation's is not."""
    if raw.alias.startswith(prefix):
        return True
    return (raw.group in GROUPS or is_network_group(raw.group)) and not raw.alias.startswith(ANY_INSTANCE)
