"""ADD's result in each version of the specification, both ways.

In between it is that of 1.1.0: `interfaces`, `ips`, `routes`, `dns`. What a version has no place for is left out
(SPEC.md and pkg/types of containernetworking/cni at 3f51e88):

- 1.1.0: interfaces gained `mtu`, `socketPath`, `pciID`; routes `mtu`, `advmss`, `priority`, `table`, `scope`
- 1.0.0: `ips[].version` dropped
- 0.3.0 to 0.4.0: `ips[].version` is "4" or "6"
- 0.1.0, 0.2.0: `ip4`, `ip6`: one address a family, with that family's routes
"""

from __future__ import annotations

from sealane.programs.cni import VERSIONS
from sealane.programs.cni.errors import CONFIG, DECODE, INCOMPATIBLE_VERSION, CniError
from sealane.programs.cni.spec import UNSTATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Result = dict[str, Any]

_FLAT = frozenset({"0.1.0", "0.2.0"})
_WITH_FAMILY = frozenset({"0.3.0", "0.3.1", "0.4.0"})
_OLD_INTERFACE = ("name", "mac", "sandbox")
_OLD_ROUTE = ("dst", "gw")


def to_version(result: Result, version: str) -> Result:
    """Raises CniError where the version cannot say it."""
    if version in _FLAT:
        return _flattened(result, version)
    shown: Result = {"cniVersion": version}
    for key in ("interfaces", "ips", "routes"):
        if result.get(key):
            shown[key] = [dict(item) for item in result[key]]
    if version != VERSIONS[-1]:
        for key, kept in (("interfaces", _OLD_INTERFACE), ("routes", _OLD_ROUTE)):
            if key in shown:
                shown[key] = [_only(item, kept) for item in shown[key]]
    if version in _WITH_FAMILY:
        shown["ips"] = [{"version": _family(ip["address"]), **ip} for ip in shown.get("ips", ())]
    if _has_dns(result):
        shown["dns"] = result["dns"]
    return shown


def from_version(result: object) -> Result:
    """A plugin's result, as it says of itself which version it is of. Raises CniError."""
    if not isinstance(result, dict):
        raise CniError(DECODE, "a plugin's result is no JSON object")
    version = result.get("cniVersion", UNSTATED)
    if version not in VERSIONS:
        raise CniError(INCOMPATIBLE_VERSION, f"a plugin's result is of version {version}")
    found = _unflattened(result) if version in _FLAT else result
    known: Result = {"interfaces": [], "ips": [], "routes": []}
    for key in known:
        items = found.get(key) or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise CniError(DECODE, f"{key} of a plugin's result is no list of objects")
        known[key] = [_without(item, "version") if key == "ips" else dict(item) for item in items]
    if not all(isinstance(ip.get("address"), str) for ip in known["ips"]):
        raise CniError(DECODE, "an address of a plugin's result is no text")
    if _has_dns(found):
        known["dns"] = found["dns"]
    return known


def before(config: Result) -> Result | None:
    """What plugins before ours in a chain have answered. Raises CniError."""
    prev = config.get("prevResult")
    return None if prev is None else from_version(prev)


def answer(before: Result | None, own: Result, version: str) -> Result:
    """What ADD prints. Raises CniError."""
    return to_version(own if before is None else merged(before, own), version)


def merged(before: Result, own: Result) -> Result:
    """What is there before our plugin in a chain, and what it adds: indexes of `ips` follow their interfaces."""
    shift = len(before["interfaces"])
    ips = [
        {**ip, "interface": ip["interface"] + shift} if "interface" in ip else ip for ip in own.get("ips", ())
    ]
    result = {
        "interfaces": [*before["interfaces"], *own.get("interfaces", ())],
        "ips": [*before["ips"], *ips],
        "routes": [*before["routes"], *own.get("routes", ())],
    }
    dns = own["dns"] if _has_dns(own) else before.get("dns")
    return {**result, "dns": dns} if dns else result


def _flattened(result: Result, version: str) -> Result:
    shown: Result = {"cniVersion": version}
    for ip in result.get("ips", ()):
        family = _family(ip["address"])
        key = f"ip{family}"
        if key in shown:
            raise CniError(CONFIG, f"version {version} has one IPv{family} address, and there are more")
        shown[key] = {"ip": ip["address"]}
        if ip.get("gateway"):
            shown[key]["gateway"] = ip["gateway"]
        routes = [route for route in result.get("routes", ()) if _family(route["dst"]) == family]
        if routes:
            shown[key]["routes"] = [_only(route, _OLD_ROUTE) for route in routes]
    if _has_dns(result):
        shown["dns"] = result["dns"]
    return shown


def _unflattened(result: Result) -> Result:
    ips: list[Result] = []
    routes: list[Result] = []
    for key in ("ip4", "ip6"):
        there = result.get(key)
        if not isinstance(there, dict):
            continue
        ip = {"address": there.get("ip")}
        ips.append({**ip, "gateway": there["gateway"]} if there.get("gateway") else ip)
        routes += there.get("routes") or []
    return {"ips": ips, "routes": routes, "dns": result.get("dns")}


def _family(value: str) -> str:
    return "6" if ":" in value else "4"


def _only(item: Result, keys: tuple[str, ...]) -> Result:
    return {key: item[key] for key in keys if key in item}


def _without(item: Result, name: str) -> Result:
    return {key: value for key, value in item.items() if key != name}


def _has_dns(result: Result) -> bool:
    """An empty `dns` is left out."""
    dns = result.get("dns")
    return isinstance(dns, dict) and any(dns.values())
