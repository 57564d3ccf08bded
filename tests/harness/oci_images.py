"""Images made by hand: a layout is a few JSON files and a tar (OCI image-spec 1.0), so no tool need be there."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any


def layer(root: Path, *members: tarfile.TarInfo) -> bytes:
    """A tar of a folder, owned by root, and of what is given besides."""
    data = io.BytesIO()

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = 0
        return member

    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(root, arcname=".", filter=owned)
        for member in members:
            archive.addfile(member)
    return data.getvalue()


def layout(folder: Path, *layers: bytes, tag: str = "latest", **config: Any) -> Path:
    """`config` in image-spec's spelling: Entrypoint, Cmd, Env, WorkingDir, User, ExposedPorts, StopSignal."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(data),
        }

    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(document).encode(), "config.v1+json"),
        "layers": [blob(each, "layer.v1.tar") for each in layers],
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = folder / "index.json"
    others = json.loads(index.read_text())["manifests"] if index.exists() else []
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*others, entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def archive(folder: Path, file: Path) -> Path:
    """The same in one file, as `oci-archive:` has it."""
    with tarfile.open(file, "w") as tar:
        tar.add(folder, arcname=".")
    return file
