"""What kernel tests stand on: hosts, namespaces, probes, raw frames, an HTTP client, and the independent auditor.

Nothing here imports sealane: a test must not share its subject's mistakes.
"""
