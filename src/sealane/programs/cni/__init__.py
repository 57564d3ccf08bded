"""The CNI executable: `sealane.integrations.cni` answers it."""

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CONFIG_BYTES_MAX = 1 << 20
