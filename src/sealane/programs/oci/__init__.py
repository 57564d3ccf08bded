"""The executable that OCI runtimes call as a hook: `sealane.doors.oci` answers it."""
