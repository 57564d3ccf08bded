"""The images' half of the daemon's double."""

from sealane.engine.errors import InvalidError, ReadOnlyError
from sealane.wire.views import ImageView, PruneView

ROOT = "image:sha256:" + "ab" * 32


class DoubleImages:
    def __init__(self):
        self.asked = []
        self.all = {}
        self.lacking = ""

    async def fetch(self, request):
        if request.unpack:
            self.asked.append(request.reference)
        if self.lacking:
            raise ReadOnlyError(
                f"images need {self.lacking}, which is not installed", hint="install skopeo and umoci"
            )
        if "broken" in request.reference:
            raise InvalidError("there is no index.json", field="reference")
        if not request.unpack:
            if request.reference in self.all:
                yield self.all[request.reference]
            return
        yield ImageView(message=f"reading {request.reference}")
        yield ImageView(message=f"unpacking {request.reference}")
        view = ImageView(
            rootfs=ROOT,
            reference=request.reference,
            entrypoint=["/bin/web"],
            command=["--serve"],
            exposed=["80/tcp"],
            containers=["web"],
        )
        self.all[request.reference] = view
        yield view

    async def list(self):
        return list(self.all.values())

    async def remove(self, ref):
        return self.all.pop(ref)

    async def prune(self):
        removed, self.all = sorted(self.all), {}
        return PruneView(removed=removed)
