"""What `init` returns: where the session is, as Ray tells it."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..ray_compat import ray_names


class RayContext(Mapping[str, Any]):
    """A session. As a context manager it ends the session when the block ends.

    It is a mapping, too, for old programs: what `address_info` has.

    Attributes:
      address_info: node_ip_address, session_dir, node_id and what else Ray has; None where there is no such thing.
      dashboard_url: empty where there is no dashboard.
      python_version, ray_version, ray_commit: the Ray version is that whose interface is met.
    """

    def __init__(self, address_info: Mapping[str, Any], disconnect: Callable[[], object]) -> None:
        """
        Args:
          address_info: see above.
          disconnect: ends the session.
        """
        self.address_info = dict(address_info)
        self.dashboard_url = str(self.address_info.get("webui_url") or "")
        self.python_version = platform.python_version()
        self.ray_version = ray_names.RAY_VERSION
        self.ray_commit = "shoal"
        self._disconnect = disconnect

    def disconnect(self) -> None:
        """End the session, as `shutdown`."""
        self._disconnect()

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, *exception: object) -> None:
        self.disconnect()

    def __getitem__(self, key: str) -> Any:
        warnings.warn(
            f'Accessing values through ctx["{key}"] is deprecated. Use ctx.address_info["{key}"] instead.',
            DeprecationWarning,
            stacklevel=2,
        )
        return self.address_info[key]

    def __len__(self) -> int:
        return len(self.address_info)

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __repr__(self) -> str:
        shown = ("dashboard_url", "python_version", "ray_version", "ray_commit")
        return f"RayContext({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
