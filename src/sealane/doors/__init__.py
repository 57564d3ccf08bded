"""Other people's plugin protocols, spoken to the engine: each door translates a request and does nothing else."""
