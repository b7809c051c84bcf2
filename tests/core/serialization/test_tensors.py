"""torch tensors travel as the memory they lie in, and what arrives is the reader's own."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from shoal.core.serialization import tensors
from shoal.core.serialization.values import deserialize, serialize
from shoal.core.store.arena import Arena


def there_and_back(value):
    sent = serialize(value)
    return deserialize(sent.kind, sent.data, [bytes(buffer) for buffer in sent.buffers])


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool,
    torch.complex64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_values(dtype):
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    copy = there_and_back(tensor)
    assert copy.dtype is dtype
    assert torch.equal(copy, tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(3, 0),
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0)[2::3],
        torch.arange(4.0).expand(3, 4),
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=["scalar", "empty", "empty 2d", "transposed", "strided", "expanded", "channels last"],
)
def test_shape_and_strides_are_kept(tensor):
    copy = there_and_back(tensor)
    assert (copy.shape, copy.stride()) == (tensor.shape, tensor.stride())
    assert torch.equal(copy, tensor)


def test_the_memory_is_not_copied_when_it_is_written():
    tensor = torch.zeros(1000, 1000)
    sent = serialize({"weights": tensor})
    assert len(sent.data) < 1000
    (buffer,) = sent.buffers
    assert np.frombuffer(buffer, np.uint8).ctypes.data == tensor.data_ptr()


def test_requires_grad_and_parameters_are_kept():
    leaf, parameter = torch.ones(2, requires_grad=True), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    copies = there_and_back([leaf, parameter, leaf * 2])
    assert [type(copy) for copy in copies] == [torch.Tensor, torch.nn.Parameter, torch.Tensor]
    assert [copy.requires_grad for copy in copies] == [True, False, True]
    copies[0].sum().backward()
    assert torch.equal(copies[0].grad, torch.ones(2))


def test_views_of_one_storage_share_it_afterwards():
    whole = torch.arange(10.0)
    sent = serialize([whole, whole[3:], whole.reshape(2, 5)])
    assert len(sent.buffers) == 1
    first, tail, table = there_and_back([whole, whole[3:], whole.reshape(2, 5)])
    first[4] = 100
    assert tail[1] == table[0, 4] == 100


def test_a_module_comes_back_whole_and_learns():
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    copy = there_and_back(module)
    for mine, theirs in zip(module.parameters(), copy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    optimiser = torch.optim.SGD(copy.parameters(), lr=0.1)
    copy(torch.ones(1, 4)).sum().backward()
    optimiser.step()
    assert not torch.equal(module[0].weight, copy[0].weight)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64).conj()])
def test_other_kinds_go_torchs_own_way(tensor):
    copy = there_and_back(tensor)
    assert torch.equal(copy.to_dense(), tensor.to_dense())


def test_attributes_of_a_tensor_are_kept():
    tensor = torch.ones(2)
    tensor.label = "mine"
    assert there_and_back(tensor).label == "mine"


def test_what_is_read_can_be_written_without_being_seen_elsewhere():
    arena = Arena.create(4 << 20)
    tensors.connect(arena.private_view)
    try:
        tensor = torch.arange(100_000, dtype=torch.float32)
        sent = serialize(tensor)
        (buffer,) = sent.buffers
        place = arena.view[12_345 : 12_345 + buffer.nbytes]
        arena.back(0, 1 << 20)
        place[:] = buffer
        before = bytes(place)
        copies = [deserialize(sent.kind, sent.data, [place.toreadonly()]) for _ in range(2)]
        copies[0].add_(1)
        assert torch.equal(copies[0], tensor + 1)
        assert torch.equal(copies[1], tensor)
        assert bytes(place) == before
    finally:
        tensors.connect(None)
        del copies, place
        arena.close()


def test_a_mapped_tensor_keeps_what_it_was_read_from():
    arena = Arena.create(4 << 20)
    tensors.connect(arena.private_view)
    try:
        released = []
        sent = serialize(torch.ones(50_000))
        arena.back(0, 1 << 20)
        arena.view[: sent.buffers[0].nbytes] = sent.buffers[0]

        class Exporter(np.ndarray):
            def __del__(self):
                released.append(True)

        seen = np.frombuffer(arena.view[: sent.buffers[0].nbytes], np.uint8).view(Exporter)
        tensor = deserialize(sent.kind, sent.data, [memoryview(seen)])
        view = tensor[10:20]
        del seen, tensor
        assert released == []
        del view
        assert released
    finally:
        tensors.connect(None)
        arena.close()


def test_plain_pickle_of_tensors_is_left_alone():
    file = io.BytesIO()
    pickle.Pickler(file).dump(torch.ones(2))
    assert b"shoal" not in file.getvalue()
