"""What would happen to this packet: desired states and a packet in, a trace out. Pure."""
