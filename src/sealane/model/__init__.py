"""What is wanted: frozen records of what people asked for. No I/O, no clock, no randomness."""
