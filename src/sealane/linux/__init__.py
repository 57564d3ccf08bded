"""Adapter: the Linux kernel. The only package that knows that netlink exists."""
