"""`explain --observed`: what a verdict rests on, held against what the kernel holds now."""
