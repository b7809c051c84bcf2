"""torch tensors on the CPU: written as the memory they lie in, and read without copying it.

A tensor is a view into a storage. The storage travels as one buffer, like an array's memory; tensors that share it
share it afterwards too, as with torch's own pickles. dtype, shape, strides and ``requires_grad`` are kept, and
parameters stay parameters. Anything else than plain tensors of memory (sparse, quantized, on a device, with hooks or
attributes) goes torch's own way.

What is read may be written into, as with Ray, and nobody else sees that: a large storage is mapped a second time,
privately, and the system copies the pages that are written to. torch knows no read-only memory, so the rule for arrays
could not be kept; and an actor that trains the weights it was created with must not change those that it is restarted
with. Small ones are copied.

torch is looked at only when the program has imported it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
#: Smaller storages are copied: a mapping of their own costs more.
_LEAST_MAPPED_BYTES = 64 * 1024

#: Maps memory of the object store a second time: writes are seen here alone. None if it is no such memory.
PrivateView = Callable[[Bytes], memoryview | None]
_private_view: PrivateView | None = None


def connect(private_view: PrivateView | None) -> None:
    """Say how memory of the object store is mapped; None: there is no store."""
    global _private_view
    _private_view = private_view


def tensor_types() -> tuple[type, ...]:
    """The exact types that `reduce_tensor` knows; none while the program has not imported torch."""
    torch = sys.modules.get("torch")
    tensor, nn = getattr(torch, "Tensor", None), getattr(torch, "nn", None)
    parameter = getattr(nn, "Parameter", None)
    return () if tensor is None or parameter is None else (tensor, parameter)  # or torch is being imported just now


class StorageBytes:
    """The memory of a storage, to be pickled as a buffer."""

    def __init__(self, array: Bytes) -> None:
        self._array = array

    def __reduce_ex__(self, _protocol: object) -> tuple[Callable[..., torch.Tensor], tuple[object]]:
        return _load_storage, (pickle.PickleBuffer(self._array),)  # type: ignore[arg-type]  # an ndarray is a buffer


def reduce_tensor(tensor: torch.Tensor, storages: dict[int, StorageBytes]) -> object:
    """How a tensor is pickled; NotImplemented where that is torch's affair.

    Args:
      storages: those that are in this pickle already, by address.
    """
    import torch

    if not _is_plain(tensor, torch):
        return NotImplemented
    storage = tensor.untyped_storage()
    address = storage.data_ptr()
    known = storages.get(address)
    if known is None:
        memory = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
        known = storages[address] = StorageBytes(memory.numpy())
    place = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
    is_parameter = type(tensor) is not torch.Tensor
    return _load_tensor, (known, str(tensor.dtype).removeprefix("torch."), *place, tensor.requires_grad, is_parameter)


def _is_plain(tensor: torch.Tensor, torch: Any) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
        and not tensor.__dict__
        and not tensor._backward_hooks  # noqa: SLF001  as torch's own reduction
    )


def _load_storage(buffer: Any) -> torch.Tensor:
    """The bytes of a storage, as a tensor whose storage it is."""
    import torch

    seen: Bytes = np.frombuffer(buffer, np.uint8)
    if seen.nbytes >= _LEAST_MAPPED_BYTES and _private_view is not None:
        mapped = _private_view(seen)
        if mapped is not None:
            own = np.frombuffer(mapped, np.uint8).view(_Pinning)
            own.pinned = seen
            return torch.from_numpy(own)
    return torch.from_numpy(seen.copy())


class _Pinning(np.ndarray):
    """An array that keeps another one alive: pages that nobody has written to are still the object's."""

    pinned: Bytes


def _load_tensor(
    memory: torch.Tensor,
    dtype: str,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,  # noqa: FBT001  called by pickle, by position
    is_parameter: bool,  # noqa: FBT001
) -> torch.Tensor:
    import torch

    with torch.no_grad():
        tensor = torch.empty(0, dtype=getattr(torch, dtype)).set_(memory.untyped_storage(), offset, shape, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    loaded: torch.Tensor = tensor.requires_grad_(requires_grad)
    return loaded
