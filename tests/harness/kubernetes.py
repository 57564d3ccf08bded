"""One node of a real Kubernetes with our daemon and plugin on it: kubelet, containerd's CRI and go-cni call us there.

The programs are one binary of `../shared/kubernetes`, or those of the PATH. Everything lives in namespaces that
`one_node/one-node` makes, and ends with them.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from harness.host import ROOT
from harness.netns import eventually

ONE_NODE = Path(ROOT, "tests", "harness", "one_node", "one-node")
HYPERKUBE = Path(ROOT).parent / "shared" / "kubernetes" / "hyperkube.zst"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin:" + os.environ.get("PATH", "")
PROGRAMS = ("etcd", "containerd", "runc", "zstd", "busybox", "openssl", "curl", "dig", "ip", "nft")
OF_KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
UP_S = 180
CALL_S = 60
WAIT_S = 90.0
NODE = "192.168.99.1"
IMAGE = "example.org/busybox:1"


def missing() -> str:
    """What keeps a cluster from being started here; empty: nothing."""
    desired = PROGRAMS if HYPERKUBE.exists() else (*PROGRAMS, *OF_KUBERNETES)
    lacking = [program for program in desired if not shutil.which(program, path=PATH)]
    return f"needs {', '.join(lacking)}" if lacking else ""


def pod(
    name: str, namespace: str, *command: str, host_port: int = 0, files: tuple[str, ...] = (), **spec: Any
) -> dict[str, Any]:
    """`host_port`: to its port 80. `files`: folders of the node that it sees at the same place."""
    container: dict[str, Any] = {"name": "c", "image": IMAGE, "imagePullPolicy": "Never"}
    if command:
        container["command"] = list(command)
    if host_port:
        container["ports"] = [{"containerPort": 80, "hostPort": host_port}]
    if files:
        volumes = {f"v{number}": path for number, path in enumerate(files)}
        container["volumeMounts"] = [{"name": n, "mountPath": p} for n, p in volumes.items()]
        spec["volumes"] = [{"name": n, "hostPath": {"path": p}} for n, p in volumes.items()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


class Cluster:
    """A context manager. `family`: of the node and its pods, `4`, `46` or `6`."""

    def __init__(self, family: str = "4") -> None:
        # Sockets lie in it, and their paths are short.
        self.dir = Path(tempfile.mkdtemp(prefix="sk", dir="/var/tmp"))
        self.environ = {
            **os.environ,
            "PATH": PATH,
            "FAMILY": family,
            "PYTHONPATH": os.path.join(ROOT, "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            **({"HYPERKUBE": str(HYPERKUBE)} if HYPERKUBE.exists() else {}),
        }
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._one_node("up", timeout_s=UP_S)
            self.node("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            init = int((self.dir / "init.pid").read_text())
            left = self.node("ctr", "-n", "k8s.io", "containers", "ls", "-q", check=False).stdout.split()
            self._one_node("down", check=False)
            eventually(lambda: not os.path.exists(f"/proc/{init}/ns/mnt"), WAIT_S, "the node has ended")
            _remove_cgroups(left)
        if self._daemon is not None:
            self._daemon.wait(CALL_S)
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- commands ---------------------------------------------------------------------------------------------------

    def _one_node(
        self, *words: str, timeout_s: float = CALL_S, check: bool = True, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(ONE_NODE), str(self.dir), *words],
            env=self.environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def node(self, *command: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        return self._one_node("in", *command, check=check, text=text)

    def outside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """On a neighbour of the node."""
        return self._one_node("outside", *command, check=check)

    def kubectl(self, *words: str, check: bool = True, text: str = "") -> str:
        return self._one_node("kubectl", *words, check=check, text=text, timeout_s=WAIT_S + CALL_S).stdout

    def sealane(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.node(sys.executable, "-m", "sealane", *words, check=check)

    # --- the daemon -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        with (self.dir / "sealane.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [str(ONE_NODE), str(self.dir), "in", sys.executable, "-m", "sealane", "daemon"],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: self.sealane("status", check=False).returncode == 0, WAIT_S, "the daemon answers")

    def restart(self, program: str) -> None:
        """`kubelet`, `containerd` or `proxy`."""
        self._one_node("restart", program)

    # --- objects ----------------------------------------------------------------------------------------------------

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl(
            "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    def wait(self, condition: str, *what: str) -> None:
        """What is not there yet is waited for as well: a fast machine asks for the node before the kubelet has made it."""
        if not condition.startswith("delete"):
            self.kubectl("wait", "--for=create", f"--timeout={WAIT_S:.0f}s", *what)
        self.kubectl("wait", f"--for={condition}", f"--timeout={WAIT_S:.0f}s", *what)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """By name, as sealane tells of them."""
        views = json.loads(self.sealane("--json", "endpoint", "ls").stdout)
        assert len({view["name"] for view in views}) == len(views)
        return {view["name"]: view for view in views}

    def in_pod(self, name: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """In a pod's network namespace, with the node's files."""
        netns = self.endpoints()[name]["netns"]
        return self.node("nsenter", f"--net={netns}", *command, check=check)


def _remove_cgroups(containers: list[str]) -> None:
    """They outlive their processes, and the node's namespaces."""
    for container in containers:
        for folder in Path("/sys/fs/cgroup").glob(f"**/k8s.io/{container}"):
            with contextlib.suppress(OSError):
                folder.rmdir()
