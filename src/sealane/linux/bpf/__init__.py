"""eBPF without a compiler: an assembler, bpf(2), and published ports on the host's own loopback."""
