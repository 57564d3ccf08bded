"""Ids of users and groups in a container's user namespace."""

ID_BASE = 0x7000_0000
"""What its id 0 is outside. systemd's list of ids (UIDS-GIDS.md) has nothing between 0x70000000 and 0x7FFDFFFF, where no
user, no dynamic user and no other engine's container is."""
ID_COUNT = 65536
"""All ids that 16 bits hold, `nobody` (65534) among them."""
