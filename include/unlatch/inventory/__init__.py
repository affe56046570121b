"""The inventory: hypervisors, guests, instances, volumes and the site's policy, from one validated YAML file."""

from unlatch.inventory.loading import Inventory, load

__all__ = ["Inventory", "load"]
