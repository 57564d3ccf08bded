"""The executable that OCI runtimes call as a hook: `sealane.integrations.oci` answers it."""
