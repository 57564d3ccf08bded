"""sealane's own HTTP API: paths to verbs of the engine, answered on a unix socket (`sealane.http`)."""

from sealane.api.server import ApiServer
from sealane.api.services import Containers, Projects, Services

__all__ = ["ApiServer", "Containers", "Projects", "Services"]
