"""Following real packets through the kernel: programs on tracepoints, and the trace of nftables."""
