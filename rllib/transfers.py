"""How arrays come to the device on which a policy learns, without the driver waiting for it.

On a GPU a copy is asynchronous only from page-locked memory. Torch keeps what it has locked and gives a block out again
when the copy from it is done, so an iteration finds the blocks of the one before. On a CPU nothing is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU where the device is; on a CPU itself."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
