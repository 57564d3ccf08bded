"""Netlink: a codec without sockets, tables of messages, and one module that owns the sockets."""
