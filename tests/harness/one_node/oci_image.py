"""oci_image.py ROOT NAME OUT ENTRYPOINT CMD: make an OCI archive of one layer from the folder ROOT. ENTRYPOINT and CMD are JSON lists."""

import hashlib
import io
import json
import os
import sys
import tarfile

root, name, out, entrypoint, cmd = (
    sys.argv[1],
    sys.argv[2],
    sys.argv[3],
    json.loads(sys.argv[4]),
    json.loads(sys.argv[5]),
)


def as_root(info):
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def digest(blob):
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def described(blob, kind):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(blob), "size": len(blob)}


buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for entry in sorted(os.listdir(root)):
        tar.add(os.path.join(root, entry), entry, filter=as_root)
layer = buffer.getvalue()
config = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Cmd": cmd, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/sbin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }
).encode()
manifest = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(config, "config.v1+json"),
        "layers": [described(layer, "layer.v1.tar")],
    }
).encode()
index = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [
            described(manifest, "manifest.v1+json")
            | {"annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}},
        ],
    }
).encode()
with tarfile.open(out, "w") as tar:
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    files |= {"blobs/sha256/" + digest(blob)[7:]: blob for blob in (layer, config, manifest)}
    for path, blob in files.items():
        info = tarfile.TarInfo(path)
        info.size = len(blob)
        tar.addfile(info, io.BytesIO(blob))
