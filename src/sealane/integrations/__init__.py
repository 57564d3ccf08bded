"""Other people's plugin protocols, spoken to the engine: each integration translates a request and does nothing else."""
