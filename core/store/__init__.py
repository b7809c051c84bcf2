"""The objects of a node in shared memory."""

from .arena import Arena
from .client import Location, StoreClient
from .regions import Region, RegionTable

__all__ = ["Arena", "Location", "Region", "RegionTable", "StoreClient"]
