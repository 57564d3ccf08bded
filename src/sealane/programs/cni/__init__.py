"""The CNI executable: `sealane.doors.cni` answers it."""
