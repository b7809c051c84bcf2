"""Ray's settings of a job and of logging, for programs that pass them to `init`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

#: Fields of a log record that `LoggingConfig` may add; Python's own names.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({})))


class Language(IntEnum):
    """What code is written in."""

    PYTHON = 0
    JAVA = 1
    CPP = 2


@dataclass
class LoggingConfig:
    """How the root logger of the driver and of every worker writes.

    encoding: "TEXT" or "JSON".
    log_level: the least level that is written.
    additional_log_standard_attrs: fields of `logging.LogRecord` to write too.
    """

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in ("TEXT", "JSON"):
            raise ValueError(f"Invalid encoding type: {self.encoding!r}. Valid encoding types are: ['TEXT', 'JSON']")
        unknown = [name for name in self.additional_log_standard_attrs if name not in _STANDARD_FIELDS]
        if unknown:
            raise ValueError(f"additional_log_standard_attrs: a log record has no {', '.join(unknown)}")

    def apply(self) -> None:
        """Set up this process's root logger, in place of what it had."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter(self))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(self.log_level)


class _Formatter(logging.Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__("%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s")
        self._is_json = config.encoding == "JSON"
        self._more = config.additional_log_standard_attrs

    def format(self, record: logging.LogRecord) -> str:
        more = {name: getattr(record, name, None) for name in self._more}
        own = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        if not self._is_json:
            told = [f"{name}={value}" for name, value in {**more, **own}.items() if name not in ("message", "asctime")]
            return " ".join([super().format(record), *told])
        fields = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            **more,
            **own,
        }
        if record.exc_info:
            fields["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class JobConfig:
    """Settings of a driver's session.

    Attributes:
      runtime_env: what workers are started with, unless `init` is given it.
      ray_namespace: where names of actors live, unless `init` is given it.
      metadata: texts by texts; kept, and used by nobody here.
      py_logging_config: how loggers write, unless `init` is given it.
    """

    def __init__(
        self,
        jvm_options: list[str] | None = None,
        code_search_path: list[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        _client_job: bool = False,  # noqa: FBT001, FBT002  Ray's signature
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        default_actor_lifetime: str = "non_detached",
        _py_driver_sys_path: list[str] | None = None,
    ) -> None:
        self.jvm_options = jvm_options or []
        self.code_search_path = code_search_path or []
        self.metadata = dict(metadata or {})
        self.ray_namespace = ray_namespace
        self.runtime_env = dict(runtime_env or {})
        self.py_logging_config: LoggingConfig | None = None
        self.set_default_actor_lifetime(default_actor_lifetime)

    def set_runtime_env(self, runtime_env: dict[str, Any] | None) -> None:
        self.runtime_env = dict(runtime_env or {})

    def set_ray_namespace(self, ray_namespace: str) -> None:
        self.ray_namespace = ray_namespace

    def set_metadata(self, key: str, value: str) -> None:
        self.metadata[key] = value

    def set_py_logging_config(self, logging_config: LoggingConfig | None) -> None:
        self.py_logging_config = logging_config

    def set_default_actor_lifetime(self, default_actor_lifetime: str) -> None:
        """
        Raises:
          ValueError: it is neither "detached" nor "non_detached".
        """
        if default_actor_lifetime not in ("detached", "non_detached"):
            raise ValueError(
                f"Default actor lifetime must be one of `detached`, `non_detached`, not {default_actor_lifetime!r}"
            )
        self.default_actor_lifetime = default_actor_lifetime

    @classmethod
    def from_json(cls, job_config_json: Mapping[str, Any]) -> JobConfig:
        """From what ``RAY_JOB_CONFIG_JSON_ENV_VAR`` holds."""
        return cls(
            jvm_options=job_config_json.get("jvm_options"),
            code_search_path=job_config_json.get("code_search_path"),
            runtime_env=job_config_json.get("runtime_env"),
            metadata=job_config_json.get("metadata"),
            ray_namespace=job_config_json.get("ray_namespace"),
        )
