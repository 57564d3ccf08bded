"""Driver options of networks in Docker's spelling."""

_BRIDGE = "com.docker.network.bridge."
DOCKER_NAMES = {
    f"{_BRIDGE}name": "bridge",
    f"{_BRIDGE}enable_icc": "icc",
    f"{_BRIDGE}enable_ip_masquerade": "masquerade",
    f"{_BRIDGE}host_binding_ipv4": "publish-address",
    f"{_BRIDGE}host_binding_ipv6": "publish-address6",
    f"{_BRIDGE}inhibit_ipv4": "inhibit-gateway",
    f"{_BRIDGE}gateway_mode_ipv4": "gateway-mode",
    f"{_BRIDGE}gateway_mode_ipv6": "gateway-mode6",
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.container_iface_prefix": "link-prefix",
    "com.docker.network.host_ipv4": "source-address",
    "com.docker.network.host_ipv6": "source-address6",
}
"""As we call them."""

SAID_BY_FIELDS = frozenset(
    {f"{_BRIDGE}default_bridge", "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"}
)
"""Say what a request's own fields say already."""
