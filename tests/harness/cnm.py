"""dockerd's half of the plugin protocol, in the order and with the bodies that dockerd 20.10.24 was recorded to send."""

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

from harness.host import Host
from harness.netns import Netns
from harness.patience import PATIENCE_S

Post = Callable[[str, bytes], Any]
"""Path and body to the answer's JSON."""

PORTMAP = "com.docker.network.portmap"
GENERIC = "com.docker.network.generic"


class PluginError(Exception):
    """What dockerd would show: an answer with `Err` or `Error`."""


class Dockerd:
    """What `docker network create`, `run`, `stop` … make of the driver."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.after: Callable[[str], None] = lambda path: None
        """Called after each request: to restart the plugin, or to raise."""

    def call(self, path: str, **fields: Any) -> dict[str, Any]:
        body = json.dumps(fields).encode() + b"\n" if fields else b""
        answer: dict[str, Any] = self._post(path, body)
        self.after(path)
        error = answer.get("Err") or answer.get("Error")
        if error:
            raise PluginError(error)
        return answer

    def activate(self) -> None:
        assert self.call("/Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
        assert self.call("/NetworkDriver.GetCapabilities")["Scope"] == "local"
        self.call("/IpamDriver.GetCapabilities")
        self.call("/IpamDriver.GetDefaultAddressSpaces")

    def pool(self, prefix: str, sub_pool: str = "", gateway: str = "", aux: str = "") -> dict[str, Any]:
        """A family's part of CreateNetwork."""
        family = {"V6": ":" in prefix}
        given = self.call(
            "/IpamDriver.RequestPool",
            AddressSpace="sealane",
            Pool=prefix,
            SubPool=sub_pool,
            Options={},
            **family,
        )
        kind = {"RequestAddressType": "com.docker.network.gateway"}
        got = self.call("/IpamDriver.RequestAddress", PoolID=given["PoolID"], Address=gateway, Options=kind)
        data = {"AddressSpace": "sealane", "Pool": given["Pool"], "Gateway": got["Address"]}
        if aux:
            got = self.call("/IpamDriver.RequestAddress", PoolID=given["PoolID"], Address=aux, Options=None)
            data["AuxAddresses"] = {"sw": got["Address"]}
        return data

    def create_network(
        self, identity: str, *pools: dict[str, Any], internal: bool = False, **options: str
    ) -> None:
        given = {key.replace("__", "."): value for key, value in options.items()}
        fields: dict[str, Any] = {GENERIC: given, "com.docker.network.enable_ipv6": len(pools) > 1}
        if internal:
            fields["com.docker.network.internal"] = True
        families = [[p for p in pools if (":" in p["Pool"]) is six] for six in (False, True)]
        self.call(
            "/NetworkDriver.CreateNetwork",
            NetworkID=identity,
            Options=fields,
            IPv4Data=families[0],
            IPv6Data=families[1],
        )

    def remove_network(self, identity: str, *pools: dict[str, Any]) -> None:
        for pool in pools:
            address = pool["Gateway"].partition("/")[0]
            self.call("/IpamDriver.ReleaseAddress", PoolID=pool["Pool"], Address=address)
            self.call("/IpamDriver.ReleasePool", PoolID=pool["Pool"])
        self.call("/NetworkDriver.DeleteNetwork", NetworkID=identity)

    def start(
        self,
        network: str,
        endpoint: str,
        sandbox: str,
        *pools: str,
        address: str = "",
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`docker run`, up to where runc starts; Join's answer."""
        options = options or {}
        got = [
            self.call("/IpamDriver.RequestAddress", PoolID=pool, Address=address, Options=None)["Address"]
            for pool in pools
        ]
        interface = {"Address": got[0], "AddressIPv6": got[1] if len(got) > 1 else "", "MacAddress": ""}
        where = {"NetworkID": network, "EndpointID": endpoint}
        self.call("/NetworkDriver.CreateEndpoint", **where, Interface=interface, Options=options)
        joined = self.call("/NetworkDriver.Join", **where, SandboxKey=sandbox, Options=options)
        if joined["Gateway"]:
            self.call("/NetworkDriver.ProgramExternalConnectivity", **where, Options=options)
        self.call("/NetworkDriver.EndpointOperInfo", **where)
        return joined

    def stop(self, network: str, endpoint: str, *leases: tuple[str, str]) -> None:
        """`docker stop`; `leases` are (pool, address)."""
        where = {"NetworkID": network, "EndpointID": endpoint}
        self.call("/NetworkDriver.RevokeExternalConnectivity", **where)
        self.call("/NetworkDriver.Leave", **where)
        self.call("/NetworkDriver.DeleteEndpoint", **where)
        for pool, address in leases:
            self.call("/IpamDriver.ReleaseAddress", PoolID=pool, Address=address)


class PluginSocket:
    """A keep-alive connection as dockerd's Go client has it: POST, no Content-Type, and (in 20.10) an empty Host."""

    ACCEPT = "application/vnd.docker.plugins.v1.2+json"

    def __init__(self, path: str, host: str = "") -> None:
        self._path, self._host = path, host
        self._http: http.client.HTTPConnection | None = None

    def __call__(self, path: str, body: bytes) -> Any:
        status, text = self.post(path, body)
        assert status == 200, f"{path}: {status}: {text}"
        return json.loads(text)

    def post(self, path: str, body: bytes) -> tuple[int, str]:
        """Like Go's, it makes a new connection when the kept one was closed meanwhile."""
        for attempt in (1, 2):
            connection = self._http or self._connect()
            try:
                connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
                connection.putheader("Host", self._host)
                connection.putheader("User-Agent", "Go-http-client/1.1")
                connection.putheader("Content-Length", str(len(body)))
                connection.putheader("Accept", self.ACCEPT)
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt == 2:
                    raise
        raise AssertionError

    def _connect(self) -> http.client.HTTPConnection:
        self._http = http.client.HTTPConnection("plugin")
        self._http.sock = socket.socket(socket.AF_UNIX)
        self._http.sock.settimeout(2 * PATIENCE_S)
        self._http.sock.connect(self._path)
        return self._http

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
        self._http = None


class Box:
    """A container's namespace: made when runc starts, and at its key from then on. `take` is what libnetwork does
    with the link that Join has named (osl/interface_linux.go)."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.key = host, f"{host.dir}/netns-{name}"
        self.ns = Netns(name)

    def appear(self) -> None:
        """The prestart hook: the key becomes the namespace."""
        with open(self.key, "w", encoding="ascii"):
            pass
        self.host.ns.sh("mount", "--bind", self.ns.path, self.key)

    def take(self, joined: dict[str, Any], mac: str, *addresses: str, number: int = 0) -> str:
        source, name = joined["InterfaceName"]["SrcName"], f"{joined['InterfaceName']['DstPrefix']}{number}"
        self.host.ns.ip("link", "set", source, "netns", str(self.ns.pid))
        self.ns.ip("link", "set", source, "down")
        self.ns.batch(
            f"link set {source} name {name}",
            f"link set {name} address {mac}",
            *(f"addr add {a} dev {name}" + (" nodad" if ":" in a else "") for a in addresses),
            f"link set {name} up",
            *(f"route add default via {joined[g]}" for g in ("Gateway", "GatewayIPv6") if joined[g]),
        )
        return name

    def give_back(self, name: str, source: str) -> None:
        """RemoveInterface: down, its old name, and back to the host."""
        self.ns.batch(f"link set {name} down", f"link set {name} name {source}")
        self.ns.ip("link", "set", source, "netns", str(self.host.ns.pid))

    def close(self) -> None:
        """The container is gone: nothing holds its namespace any more."""
        self.host.ns.run("umount", self.key)
        self.ns.close()
