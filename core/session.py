"""What the processes of one session have to know of each other; made by `init`, inherited through the zygote."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Any

from .config import CoreConfig
from .ray_compat.job_config import LoggingConfig


@dataclass(frozen=True)
class Session:
    """One session: everything that `init` starts, until `shutdown`.

    directory: holds the sockets; only the user can enter it; removed at the end.
    token: what every link must begin with.
    arena_fd, arena_bytes: the object store's shared memory; every process inherits the descriptor.
    job_id: 4 bytes.
    driver_pid: the session ends when this process does.
    resources: of the node, in 1/10_000.
    gpus: ids of its GPUs, as CUDA_VISIBLE_DEVICES has them; `gpus_listed`: it was set.
    labels: of the node.
    path: the driver's ``sys.path``, so that workers find the same modules.
    preload: modules that the zygote imports, so that workers need not.
    namespace: where names of actors live that come without one.
    logging: how root loggers write; None leaves them alone.
    as_ray: ``import ray`` finds shoal in the driver, hence in every worker too.
    log_to_driver: the driver prints what workers print.
    """

    directory: str
    token: bytes
    arena_fd: int
    arena_bytes: int
    job_id: bytes
    driver_pid: int
    resources: dict[str, int]
    gpus: list[str]
    gpus_listed: bool
    labels: dict[str, str]
    path: list[str]
    preload: list[str]
    namespace: str
    logging: LoggingConfig | None
    as_ray: bool
    log_to_driver: bool
    config: CoreConfig

    def to_dict(self) -> dict[str, Any]:
        """For msgpack: how it travels to the zygote, by a pipe (never in arguments, which other users can read)."""
        logging = None if self.logging is None else asdict(self.logging)
        return {**self.__dict__, "config": self.config.to_dict(), "logging": logging}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Session:
        logging = fields["logging"] and LoggingConfig(**fields["logging"])
        return cls(**{**fields, "config": CoreConfig(**fields["config"]), "logging": logging})


def new_token() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(32)
