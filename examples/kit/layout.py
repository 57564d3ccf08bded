"""What the command line says of a running project: where each service is."""

from examples.kit.sealane import Sealane


class Layout:
    """`at`: service → network → address, names without the project's."""

    def __init__(self, sealane: Sealane, project: str) -> None:
        self.project = project
        self.networks = {
            network["name"].removeprefix(f"{project}_"): network for network in sealane.ask("network", "ls")
        }
        self.pids = [container["pid"] for container in sealane.ask("ps")]
        self.at: dict[str, dict[str, str]] = {}
        for endpoint in sealane.ask("endpoint", "ls"):
            service = endpoint["name"].removeprefix(f"{project}-").removesuffix("-1")
            network = endpoint["network"].removeprefix(f"{project}_")
            self.at.setdefault(service, {})[network] = endpoint["addresses"][0].partition("/")[0]

    def addresses(self, service: str) -> list[str]:
        """One on each of its networks."""
        return list(self.at[service].values())

    @property
    def gateways(self) -> list[str]:
        """The host's own addresses on the networks."""
        return [subnet["gateway"] for network in self.networks.values() for subnet in network["subnets"]]

    def subnet(self, network: str) -> str:
        return str(self.networks[network]["subnets"][0]["prefix"])

    def is_internal(self, network: str) -> bool:
        return bool(self.networks[network]["internal"])
