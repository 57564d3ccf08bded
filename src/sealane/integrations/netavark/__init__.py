"""The daemon's side of podman: what the netavark front end (`sealane.programs.netavark`) asks, on the engine's verbs."""
