"""Front door: HTTP over a unix socket."""
