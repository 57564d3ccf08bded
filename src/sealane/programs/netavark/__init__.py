"""The netavark front end: podman takes it for netavark. `sealane.integrations.netavark` answers it."""
