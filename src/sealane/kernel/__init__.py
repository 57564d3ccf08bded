"""What a network namespace holds, as data: one frozen record an object of the kernel's, each under a key."""
