"""``ray.experimental.internal_kv``: bytes by bytes, seen by every process of the session. For tests and libraries.

One actor holds them, created at the first call and found by its name. Texts stand for their UTF-8 bytes.
"""

from __future__ import annotations

from .. import api
from ..remote import ActorHandle, remote

_NAME = "internal_kv"
_NAMESPACE = "_shoal"

Text = str | bytes


class KeyValueStore:
    """The bytes, by namespace and key."""

    def __init__(self) -> None:
        self._values: dict[tuple[bytes, bytes], bytes] = {}

    def get(self, namespace: bytes, key: bytes) -> bytes | None:
        return self._values.get((namespace, key))

    def put(self, namespace: bytes, key: bytes, value: bytes, overwrite: bool) -> bool:  # noqa: FBT001  one call
        """Whether there was a value before."""
        existed = (namespace, key) in self._values
        if overwrite or not existed:
            self._values[namespace, key] = value
        return existed

    def keys(self, namespace: bytes, prefix: bytes) -> list[bytes]:
        return [key for space, key in self._values if space == namespace and key.startswith(prefix)]

    def delete(self, namespace: bytes, keys: list[bytes]) -> int:
        """How many there were."""
        return sum(self._values.pop((namespace, key), None) is not None for key in keys)


def _internal_kv_initialized() -> bool:
    """Whether there is a session to keep values in."""
    return api.is_initialized()


def _internal_kv_get(key: Text, *, namespace: Text | None = None) -> bytes | None:
    """The value, or None."""
    value: bytes | None = api.get(_store().get.remote(_bytes(namespace or b""), _bytes(key)))
    return value


def _internal_kv_exists(key: Text, *, namespace: Text | None = None) -> bool:
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_put(
    key: Text,
    value: Text,
    overwrite: bool = True,  # noqa: FBT001, FBT002  Ray's signature
    *,
    namespace: Text | None = None,
) -> bool:
    """Store a value; returns whether there was one before."""
    return api.get(_store().put.remote(_bytes(namespace or b""), _bytes(key), _bytes(value), overwrite)) is True


def _internal_kv_del(key: Text, *, del_by_prefix: bool = False, namespace: Text | None = None) -> int:
    """Remove a value, or all whose keys begin so; returns how many."""
    keys = _internal_kv_list(key, namespace=namespace) if del_by_prefix else [_bytes(key)]
    return int(api.get(_store().delete.remote(_bytes(namespace or b""), keys)))


def _internal_kv_list(prefix: Text, *, namespace: Text | None = None) -> list[bytes]:
    """The keys that begin so."""
    return list(api.get(_store().keys.remote(_bytes(namespace or b""), _bytes(prefix))))


def _store() -> ActorHandle:
    options = {"name": _NAME, "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
    made: ActorHandle = remote(**options)(KeyValueStore).remote()
    return made


def _bytes(text: Text) -> bytes:
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes):
        return text
    raise TypeError(f"keys, values and namespaces are bytes or texts, not {type(text).__name__} {text!r}")
