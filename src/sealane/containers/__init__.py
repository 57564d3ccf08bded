"""Containers as processes in namespaces of their own, run by an OCI runtime (runc, else crun).

Who does what:

* `spec`, `oci`, `health`, `users`, `seccomp`: pure. What is wanted, and the runtime's `config.json` for it.
* `runtime`: the verbs (create_and_start, stop, exec, logs, ...). Keeps nothing in memory: all truth is in files.
* `shim` + `supervisor` + `probe` + `logwriter`: one process a container, standard library only. It owns the container's
  output, exit status, restarts and health checks, so that the daemon may die at any instant.
* `execshim` + `exec_shim`: the same for a further process (`exec`), as long as it lasts. `streams`, `frames`, `console`:
  input and output of both, one mechanism, to a client if there is one.
* `parent`: what shim and attendant are alike in. `files`, `process`: what they share with the daemon. Standard library only.

This module imports nothing: the shim pays for every import with memory.
"""
