"""sealane's own API on a unix socket."""

from collections.abc import Collection

from sealane.api.routes import Routes
from sealane.api.services import Services
from sealane.http.connection import Bounds
from sealane.http.server import HttpServer


class ApiServer(HttpServer):
    def __init__(
        self, services: Services, *, bounds: Bounds | None = None, uids: Collection[int] | None = None
    ) -> None:
        super().__init__(Routes(services), bounds=bounds, uids=uids)
