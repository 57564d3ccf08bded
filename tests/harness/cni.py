"""A container runtime's side of CNI: what libcni does with a conflist, one process a plugin."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.host import Host
from harness.patience import PATIENCE_S

PLUGINS = "/usr/lib/cni"
"""Debian's containernetworking-plugins."""
TIMEOUT_S = 2 * PATIENCE_S


class CniFailed(Exception):
    """A plugin's error: its code and message."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(f"code {document.get('code')}: {document.get('msg')} {document.get('details', '')}")
        self.code = document.get("code")
        self.message = document.get("msg", "")
        self.document = document


class CniRuntime:
    """On a host. `path`: where plugins are looked for, ours first. `flags`: of `sealane cni install`."""

    def __init__(self, host: Host, directory: str, *flags: str) -> None:
        self.host = host
        self.bin_dir, self.conf_dir = os.path.join(directory, "bin"), os.path.join(directory, "net.d")
        host.sealane("cni", "install", "--bin-dir", self.bin_dir, "--conf-dir", self.conf_dir, *flags)
        self.path = f"{self.bin_dir}:{PLUGINS}"
        self.cache: dict[tuple[str, str, str], dict[str, Any]] = {}

    def execute(
        self, plugin: str, verb: str, stdin: str, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One process, on the host, with just this environment."""
        directory = next((d for d in self.path.split(":") if os.path.exists(f"{d}/{plugin}")), self.bin_dir)
        inside = ["nsenter", f"--net={self.host.ns.path}", f"--mount=/proc/{self.host.ns.pid}/ns/mnt", "--"]
        return subprocess.run(
            [*inside, f"{directory}/{plugin}"],
            input=stdin,
            env={"PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_PATH": self.path, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def call(
        self,
        config: dict[str, Any],
        verb: str,
        container: str = "",
        netns: str = "",
        ifname: str = "eth0",
        args: str = "",
    ) -> Any:
        """One plugin's answer; CniFailed for its error."""
        environ = {"CNI_CONTAINERID": container, "CNI_IFNAME": ifname, "CNI_NETNS": netns, "CNI_ARGS": args}
        environ = {key: value for key, value in environ.items() if value and container}
        done = self.execute(config["type"], verb, json.dumps(config), environ)
        if done.returncode != 0:
            raise CniFailed(json.loads(done.stdout) if done.stdout else {"msg": done.stderr})
        return json.loads(done.stdout) if done.stdout else None

    def add(
        self,
        conflist: dict[str, Any],
        container: str,
        netns: str,
        ifname: str = "eth0",
        args: str = "",
        **given: Any,
    ) -> dict[str, Any]:
        """The chain in order, each given what the one before answered. `given`: capability arguments."""
        result = None
        for plugin in conflist["plugins"]:
            config = _config(conflist, plugin, given)
            if result is not None:
                config["prevResult"] = result
            result = self.call(config, "ADD", container, netns, ifname, args)
        assert result is not None
        self.cache[conflist["name"], container, ifname] = result
        return result

    def delete(
        self,
        conflist: dict[str, Any],
        container: str,
        netns: str = "",
        ifname: str = "eth0",
        args: str = "",
        **given: Any,
    ) -> None:
        self._backwards("DEL", conflist, container, netns, ifname, args, given)
        self.cache.pop((conflist["name"], container, ifname), None)

    def check(
        self,
        conflist: dict[str, Any],
        container: str,
        netns: str,
        ifname: str = "eth0",
        args: str = "",
        **given: Any,
    ) -> None:
        self._backwards("CHECK", conflist, container, netns, ifname, args, given)

    def _backwards(
        self,
        verb: str,
        conflist: dict[str, Any],
        container: str,
        netns: str,
        ifname: str,
        args: str,
        given: Any,
    ) -> None:
        plugins = conflist["plugins"]
        for plugin in reversed(plugins) if verb == "DEL" else plugins:
            config = _config(conflist, plugin, given)
            cached = self.cache.get((conflist["name"], container, ifname))
            if cached is not None and conflist["cniVersion"] not in {"0.1.0", "0.2.0", "0.3.0", "0.3.1"}:
                config["prevResult"] = cached
            self.call(config, verb, container, netns, ifname, args)

    def gc(self, conflist: dict[str, Any], valid: list[tuple[str, str]] | None) -> None:
        attachments = None if valid is None else [{"containerID": c, "ifname": i} for c, i in valid]
        for plugin in conflist["plugins"]:
            config = _config(conflist, plugin, {})
            config["cni.dev/valid-attachments"] = config["cni.dev/attachments"] = attachments
            self.call(config, "GC")

    def status(self, conflist: dict[str, Any]) -> None:
        for plugin in conflist["plugins"]:
            self.call(_config(conflist, plugin, {}), "STATUS")

    def together(self, *acts: Any) -> list[Any]:
        """All at once; each one's answer or error."""

        def act(one: Any) -> Any:
            try:
                return one()
            except CniFailed as error:
                return error

        with ThreadPoolExecutor(max_workers=len(acts)) as pool:
            return list(pool.map(act, acts))


def _config(conflist: dict[str, Any], plugin: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A plugin's object as libcni hands it over: `capabilities` stays in, as it does there."""
    config = {**plugin, "cniVersion": conflist["cniVersion"], "name": conflist["name"]}
    desired = {key: value for key, value in given.items() if plugin.get("capabilities", {}).get(key)}
    return {**config, "runtimeConfig": desired} if desired else config


CAPABILITIES = dict.fromkeys(
    ("aliases", "bandwidth", "cgroupPath", "dns", "ipRanges", "ips", "mac", "portMappings"), True
)


def conflist(
    *chained: dict[str, Any],
    version: str = "1.1.0",
    name: str = "pods",
    before: tuple[dict[str, Any], ...] = (),
    **own: Any,
) -> dict[str, Any]:
    """Ours, and others before and after it."""
    plugin = {"type": "sealane", "capabilities": CAPABILITIES, **own}
    return {"cniVersion": version, "name": name, "plugins": [*before, plugin, *chained]}


def ranges(*subnets: str, **fields: str) -> dict[str, Any]:
    return {"type": "sealane", "ranges": [[{"subnet": subnet, **fields}] for subnet in subnets]}
