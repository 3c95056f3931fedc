"""Looks up what a launch needs of a region: the image with its disk, and the subnets."""

from dataclasses import dataclass, field

from gpu_offload.infra.aws.ec2 import Ec2
from gpu_offload.infra.aws.image import Image, find_image
from gpu_offload.infra.aws.security_group import Subnet
from gpu_offload.orchestrator.offers.offer import Offer
from gpu_offload.orchestrator.settings.machines import Ec2Settings


@dataclass
class Ec2Regions:
    """Looks images and subnets up, once for each region."""

    settings: Ec2Settings
    _images: dict[str, Image] = field(default_factory=dict)
    _subnets: dict[str, dict[str, Subnet]] = field(default_factory=dict)

    def image(self, region: str) -> Image:
        """Return the image that instances start from."""
        if region not in self._images:
            self._images[region] = find_image(region, self.settings.image)
        return self._images[region]

    def volume_gib(self, region: str) -> int:
        """Return the size of an instance's disk, GiB; the image's size counts where it was looked up."""
        image = self._images.get(region)
        return max(self.settings.volume_gib, image.size_gib) if image else self.settings.volume_gib

    def subnet(self, ec2: Ec2, offer: Offer) -> Subnet:
        """Return the subnet for an offer."""
        if offer.zone is not None and self.settings.subnet is not None:
            return ec2.subnet(offer.zone, self.settings.subnet)
        if ec2.region not in self._subnets:
            self._subnets[ec2.region] = ec2.subnets()
        zones = self._subnets[ec2.region]
        # An offer of the price table names no zone; then any zone with a network will do.
        zone = offer.zone or next(iter(zones), "")
        return zones[zone] if zone in zones else ec2.subnet(zone)
