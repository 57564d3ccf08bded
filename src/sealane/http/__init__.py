"""HTTP/1.1 over unix sockets, as the API and Docker's plugin integration are served: connections, bounds, bodies, errors."""
