"""The daemon's side of the OCI hook: what the executable (`sealane.programs.oci`) asks, on the engine's verbs."""
