"""How values, functions and failures become bytes."""

from .failures import serialize_error, serialize_failure
from .functions import ExportedFunction, FunctionExporter, FunctionTable
from .values import FAILURE, Serialized, deserialize, serialize

__all__ = [
    "FAILURE",
    "ExportedFunction",
    "FunctionExporter",
    "FunctionTable",
    "Serialized",
    "deserialize",
    "serialize",
    "serialize_error",
    "serialize_failure",
]
