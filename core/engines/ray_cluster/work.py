"""What runs in Ray's processes in place of the user's functions and classes.

    task     begins (the process gets an engine), calls the user's function, carries what that raises (failures.py)
    shell    an actor that has the user's object inside and hands its calls on: to the object, `self` is what it made,
             and what one of its methods raises into another is what was raised

The wrappers are made anew for each function, so Ray's serialiser takes them by value, and what they name of shoal's
modules by reference: loading one imports those. A process that user code forks ends when it comes back to them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray

from ...options import STREAMING
from ...protocol.specs import WireMethod
from ...runtime.concurrency import is_async
from ...runtime.outcomes import end_fork
from ...runtime.special_methods import SPECIAL_METHODS
from ...signatures import parameters_of
from .failures import carried, in_fork, left
from .handles import PLAIN, SHELL_NAMES, arrived, arrived_named
from .options import of_call

_INNER = "_shoal_inner"
#: First in the signatures of a shell's methods, where no parameter of the user's has its name.
_SHELL = inspect.Parameter("_shoal_shell", inspect.Parameter.POSITIONAL_ONLY)
Wrapper = Callable[..., Any]
_Begun = Callable[[tuple[Any, ...], dict[str, Any]], Any]
_Failed = Callable[[BaseException], BaseException]


def task(function: Wrapper, begin: Callable[[], None], retry_on: tuple[type[BaseException], ...]) -> Wrapper:
    """The function that Ray runs in place of the user's."""
    name = function.__name__

    def begun(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        begin()
        return function(*arrived(args), **arrived_named(kwargs))

    run = _wrapped(function, begun, lambda error: carried(error, name, retry_on=retry_on))
    run.__name__, run.__qualname__ = name, function.__qualname__
    run.__doc__, run.__module__ = function.__doc__, function.__module__
    run.__signature__ = inspect.Signature(_parameters(function, bound=False))  # type: ignore[attr-defined]
    return run


def actor_class(cls: type, methods: Mapping[str, WireMethod], begin: Callable[[], None]) -> type:
    """The class that Ray makes the actor of: a shell for an object of the user's."""
    name = cls.__name__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  it is one
        begin()
        try:
            setattr(self, _INNER, cls(*arrived(args), **arrived_named(kwargs)))
        except BaseException as error:  # noqa: BLE001  see `failed`
            raise carried(error, f"{name}.__init__", actor=name) from None

    members: dict[str, Any] = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__init__": __init__}
    if inspect.getattr_static(cls, "__repr__") is not object.__repr__:
        members["__repr__"] = lambda self: repr(getattr(self, _INNER))
    for method, how in methods.items():
        if method not in SPECIAL_METHODS:
            members[method] = _method(cls, method, inspect.getattr_static(cls, method), how)
    for method, own in SHELL_NAMES.items():
        members[own] = _method(cls, method, SPECIAL_METHODS[method], PLAIN)
    return type(name, (), members)


def _method(cls: type, method: str, member: Any, how: WireMethod) -> Wrapper:
    """A method of the shell of a class."""
    function = getattr(member, "__func__", member)
    on_event_loop = is_async(cls)

    def begun(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inner = getattr(args[0], _INNER)
        called = partial(SPECIAL_METHODS[method], inner) if method in SPECIAL_METHODS else getattr(inner, method)
        return called(*arrived(args[1:]), **arrived_named(kwargs))

    def failed(error: BaseException) -> BaseException:
        if on_event_loop and isinstance(error, SystemExit):
            return left()
        return carried(error, f"{cls.__name__}.{method}", actor=cls.__name__)

    run = _wrapped(function, begun, failed)
    run.__name__, run.__qualname__, run.__doc__ = method, f"{cls.__name__}.{method}", function.__doc__
    parameters = _parameters(function, bound=not isinstance(member, staticmethod))
    run.__signature__ = inspect.Signature([_SHELL, *parameters])  # type: ignore[attr-defined]
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    said = of_call(how, (STREAMING, *PLAIN[1:]) if is_generator else PLAIN)
    declared: Wrapper = ray.method(**said)(run) if said else run
    return declared


def _parameters(function: Wrapper, *, bound: bool) -> list[inspect.Parameter]:
    """What Ray holds calls against; 2 us less for those without any. Only the driver needs them, so they are bare."""
    try:
        known = parameters_of(function, bound=bound)
    except ValueError:  # some builtins have none
        known = parameters_of(lambda *args, **kwargs: None, bound=bound)
    empty = inspect.Parameter.empty
    return [one.replace(annotation=empty, default=empty if one.default is empty else None) for one in known]


def _wrapped(function: Wrapper, begun: _Begun, failed: _Failed) -> Wrapper:
    """A function of the same kind as the user's that runs `begun`.

    Args:
      begun: calls the user's.
      failed: what is to be raised in place of what that raises.
    """
    if inspect.isasyncgenfunction(function):
        return _async_generator(begun, failed)
    if inspect.iscoroutinefunction(function):
        return _coroutine(begun, failed)
    if inspect.isgeneratorfunction(function):
        return _generator(begun, failed)

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            result = begun(args, kwargs)
        except BaseException as error:  # noqa: BLE001  see `failed`
            raise failed(error) from None
        if in_fork():
            end_fork(None)
        return result

    return run


def _coroutine(begun: _Begun, failed: _Failed) -> Wrapper:
    async def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return await begun(args, kwargs)
        except BaseException as error:  # noqa: BLE001  see `failed`
            raise failed(error) from None

    return run


def _generator(begun: _Begun, failed: _Failed) -> Wrapper:
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            for item in begun(args, kwargs):  # noqa: UP028  `yield from` would send on what Ray sends in
                yield item
        except BaseException as error:  # noqa: BLE001  see `failed`
            raise failed(error) from None

    return run


def _async_generator(begun: _Begun, failed: _Failed) -> Wrapper:
    async def run(*args: Any, **kwargs: Any) -> Any:
        try:
            async for item in begun(args, kwargs):
                yield item
        except BaseException as error:  # noqa: BLE001  see `failed`
            raise failed(error) from None

    return run
