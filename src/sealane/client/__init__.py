"""A client of the daemon: HTTP/1.1 over a unix socket, with the standard library alone.

    with Client() as client:
        network = client.request("POST", "/v1/networks", {"name": "front"})
        for event in client.stream("GET", "/v1/events?follow=1"):
            ...

It imports nothing else of sealane and nothing slow, for executables that are started anew for every call.
"""

from sealane.client.connection import Client, default_socket, path_of
from sealane.client.errors import ApiError, ClientError, UnreachableError

__all__ = ["ApiError", "Client", "ClientError", "UnreachableError", "default_socket", "path_of"]
