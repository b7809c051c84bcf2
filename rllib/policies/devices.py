"""The device on which a policy computes: which it is, and how arrays come there without the driver waiting for it.

On a GPU a copy is asynchronous only from page-locked memory. Torch keeps what it has locked and gives a block out again
when the copy from it is done, so an iteration finds the blocks of the one before. On a CPU nothing is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def resolve_device(name: str, precision: Literal["float32", "bfloat16"] = "float32") -> torch.device:
    """``auto`` is a GPU if there is one; anything else is torch's name of a device.

    Raises:
      ValueError: torch knows no such device, it is not there, or it does not compute in this precision. One line.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    how = ""
    try:
        if name != "auto":
            device = torch.device(name)
            torch.zeros(1, device=device)
        if precision != "float32":
            how = f" in {precision}"
            with torch.autocast(device.type, getattr(torch, precision)):
                torch.zeros(1, 1, device=device).mm(torch.zeros(1, 1, device=device))
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ValueError(f"device {name!r} cannot be used{how}: {str(error).splitlines()[0]}") from error
    return device


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU where the device is; on a CPU itself."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
