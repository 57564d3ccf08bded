"""The lab: several hosts on one machine, made of namespaces, joined by an underlay, with a real etcd beside them.

`spec`, `read`, `plan` and `wiring` are pure: a lab file to a plan, a plan to the text that ip(8) and nft(8) are given.
The rest is the edge: `client` is called by the command line, `warden` and `holder` are the lab's two processes.
"""
