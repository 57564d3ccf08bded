"""Packets as they were seen in the kernel, beside what should have become of them: `sealane trace`."""
