"""HTTP/1.1 over unix sockets, as the API and Docker's plugin door are served: connections, bounds, bodies, errors."""
