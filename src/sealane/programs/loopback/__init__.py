"""The CNI plugin `loopback`, which containerd and CRI-O call for each pod beside the network's own."""
