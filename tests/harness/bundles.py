"""Bundles of busybox, and the OCI runtimes that run them, on a host of their own."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness import podman
from harness.host import Host
from harness.patience import PATIENCE_S

SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin"
APPLETS = ("wget", "id", "env", "echo", "ls", "true")
TIMEOUT_S = 2 * PATIENCE_S


def rootfs(directory: Path) -> Path:
    """A file system of busybox alone, with more of its names than podman's tests need."""
    podman.rootfs(directory)
    for name in APPLETS:
        if not (directory / "bin" / name).exists():
            (directory / "bin" / name).symlink_to("busybox")
    return directory


class OciRuntime:
    """`runc` or `crun`, with a root of its own in the host's /run."""

    def __init__(self, host: Host, program: str, directory: Path) -> None:
        self.host, self.program, self.directory = host, program, directory
        self.hook = str(directory / "libexec" / "oci-hook")
        self.inside = ["nsenter", f"--net={host.ns.path}", f"--mount=/proc/{host.ns.pid}/ns/mnt", "--"]
        if program == "crun":
            # crun 1.8 refuses a host that has control groups v1 and v2 at once; in this mount namespace it has one.
            host.ns.run("umount", "/sys/fs/cgroup/unified")

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self.inside, self.program, "--root", f"/run/{self.program}-test", *words]
        # A detached container holds what it was given as its output.
        with (self.directory / "said").open("w+") as output:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=TIMEOUT_S,
                check=False,
            ).returncode
            output.seek(0)
            done = subprocess.CompletedProcess(command, code, output.read(), "")
        assert not check or code == 0, f"{self.program} {' '.join(words)}: {done.stdout}"
        return done

    def bundle(
        self,
        identity: str,
        /,
        *command: str,
        nameserver: str = "",
        namespaces: tuple[dict[str, str], ...] = ({"type": "network"},),
        hooks: dict[str, Any] | None = None,
        **annotations: str,
    ) -> Path:
        """A folder with a config.json; annotations are `sealane.KEY`, `__` for a dot and `_` for a dash."""
        folder = self.directory / identity
        folder.mkdir()
        root = rootfs(folder / "rootfs")
        if nameserver:
            (root / "etc" / "resolv.conf").write_text(f"nameserver {nameserver}\n")
        self("spec", "--bundle", str(folder)) if self.program == "runc" else self._crun_spec(folder)
        config = json.loads((folder / "config.json").read_text())
        config["process"] |= {"args": list(command or ("sleep", "300")), "terminal": False, "rlimits": []}
        config["annotations"] = {
            f"sealane.{key.replace('__', '.').replace('_', '-')}": value for key, value in annotations.items()
        }
        others = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
        config["linux"]["namespaces"] = [*others, *namespaces]
        config["hooks"] = self.hooks() if hooks is None else hooks
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def _crun_spec(self, folder: Path) -> None:
        """Written into the current folder."""
        subprocess.run([self.program, "spec"], cwd=folder, check=True)

    def hooks(self) -> dict[str, Any]:
        return dict(json.loads(self.host.sealane("oci", "hooks", "--bin", self.hook).stdout))

    def run(self, bundle: Path, name: str = "", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        name = name or bundle.name
        pid_file = str(self.directory / f"{name}.pid")
        return self("run", "--detach", "--pid-file", pid_file, "--bundle", str(bundle), name, check=check)

    def pid(self, name: str) -> int:
        return int((self.directory / f"{name}.pid").read_text())

    def exec(self, name: str, *words: str, check: bool = True) -> str:
        return self("exec", name, *words, check=check).stdout

    def names(self) -> list[str]:
        return self("list", "--quiet").stdout.split()

    def close(self) -> None:
        for name in self.names():
            self("delete", "--force", name)


def has(*programs: str) -> bool:
    return all(shutil.which(program, path=f"{SEARCH}:{os.environ.get('PATH', '')}") for program in programs)
