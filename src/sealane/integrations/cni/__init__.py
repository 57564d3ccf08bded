"""The daemon's side of CNI: what the executable (`sealane.programs.cni`) asks, on the engine's verbs."""
