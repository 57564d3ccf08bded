"""Which address, and which subnet: pure arithmetic over what is in use."""
