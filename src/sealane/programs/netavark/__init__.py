"""The netavark front end: podman takes it for netavark. `sealane.doors.netavark` answers it."""
