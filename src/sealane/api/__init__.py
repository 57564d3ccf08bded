"""Front door: HTTP over a unix socket."""

from sealane.api.connection import Bounds
from sealane.api.listen import inherited_sockets
from sealane.api.server import ApiServer
from sealane.api.services import Containers, Projects, Services

__all__ = ["ApiServer", "Bounds", "Containers", "Projects", "Services", "inherited_sockets"]
