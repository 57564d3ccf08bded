"""The resolver of the networks: names for the workloads, forwarding for the rest.

``records`` are what it is told, ``index`` and ``zone`` decide, ``wire``, ``relay`` and ``walk`` read and write messages,
``responder`` joins them; none of these does I/O. ``listen``, ``upstream``, ``stream`` and ``server`` own the sockets.
"""

from sealane.dns.records import ZoneError, ZoneMember, ZoneNetwork
from sealane.dns.server import DnsServer, Stats

__all__ = ["DnsServer", "Stats", "ZoneError", "ZoneMember", "ZoneNetwork"]
