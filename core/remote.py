"""What ``@remote`` makes: remote functions, actor classes, and the handles of actors.

    @remote                        f.remote(1)                   -> ObjectRef
    def f(x): ...                  f.options(num_cpus=2).remote(1)

    @remote                        counter = Counter.remote(10)  -> ActorHandle
    class Counter: ...             counter.add.remote(1)         -> ObjectRef

Checks what can be checked before anything is sent: options, and that the arguments fit the signature. The rest is the
engine's.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import update_wrapper
from typing import Any, NoReturn, TypeVar

from .dag import ClassMethodNode, ClassNode, FunctionNode, OutputNode
from .destinations import inherit_actor, inherit_task, placed_actor, placed_task
from .engines.base import ActorIdentity, Returns
from .engines.current import engine
from .errors import ActorHandleNotFoundError
from .generators import ObjectRefGenerator
from .options import STREAMING, ActorOptions, MethodOptions, TaskOptions, actor_options, method_options, task_options
from .protocol.specs import WireMethod
from .ray_compat.ray_ids import ActorID
from .refs import ObjectRef
from .runtime import context
from .runtime.concurrency import lanes_wanted
from .runtime.special_methods import SPECIAL_METHODS
from .signatures import parameters_of

F = TypeVar("F", bound=Callable[..., Any])

#: Where `method` leaves its options, on the function.
_OPTIONS = "__shoal_method__"


def remote(*args: Any, **options: Any) -> Any:
    """Make a function a task, or a class an actor, that runs in another process.

    Use it bare (``@remote``) or with options (``@remote(num_cpus=2)``).

    Options of functions: num_returns, num_cpus, num_gpus, memory, resources, max_retries, retry_exceptions, max_calls,
    name. A generator's items are streamed as refs; ``num_returns="dynamic"`` gives one ref to all of them.
    Options of classes: num_cpus, num_gpus, memory, resources, name, namespace, get_if_exists, lifetime, max_restarts,
    max_task_retries, max_concurrency, max_pending_calls, concurrency_groups. A class with an ``async def`` method makes
    an actor whose calls run as coroutines on one event loop.
    Options of both: runtime_env; where to run: accelerator_type, scheduling_strategy, label_selector,
    fallback_strategy.

    Example:
      >>> @shoal.remote
      ... def square(x):
      ...     return x * x
      >>> shoal.get(square.remote(3))
      9

    Raises:
      TypeError: used on something that is neither a function nor a class.
      ValueError: an option that does not exist, or has an impossible value.
    """
    if len(args) == 1 and not options:
        return _make_remote(args[0], {})
    if args or not options:
        raise AssertionError("use @remote alone, or @remote(...) with keyword options such as num_cpus=2")
    return lambda target: _make_remote(target, options)


def _make_remote(target: Any, options: dict[str, Any]) -> RemoteFunction | ActorClass:
    if inspect.isclass(target):
        return ActorClass(target, options)
    if inspect.iscoroutinefunction(target):
        raise ValueError(f"{target.__name__} is an async function: only methods of actors may be async")
    if inspect.isfunction(target) or inspect.isbuiltin(target):
        return RemoteFunction(target, options)
    raise TypeError(f"@remote works on functions and classes, not on {type(target).__name__} {target!r}")


class RemoteFunction:
    """A function whose calls are tasks. Made by `remote`."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._function = function
        self._given = dict(options)
        if self._given.get("num_gpus") and self._given.get("max_calls") is None:
            self._given["max_calls"] = 1  # Ray's rule: the memory of a GPU is only free when its process has ended
        self._is_generator = inspect.isgeneratorfunction(function)
        self._options = self._check(self._given)
        self._arity = _Arity(function)
        update_wrapper(self, function)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; returns a ref (a list of `num_returns` refs; None when that is 0) at once."""
        return self.submit(self._options, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> FunctionNode:
        """A node of a DAG: the call is made when the DAG is executed."""
        return self.bound(self, args, kwargs)

    def bound(
        self, maker: RemoteFunction | RemoteFunctionWithOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> FunctionNode:
        """The node of a call that `maker` makes; what every ``bind`` of this function comes to."""
        return FunctionNode(maker, self._function.__name__, args, kwargs)

    def options(self, **options: Any) -> RemoteFunctionWithOptions:
        """The same function with other options for the calls made through the result."""
        if "max_calls" in options:
            raise ValueError("max_calls is given with @remote(...), not with .options(...): it is the function's")
        return RemoteFunctionWithOptions(self, self._check({**self._given, **options}))

    def submit(self, options: TaskOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Check the call and hand it to the engine; what every ``remote`` of this function comes to."""
        self._arity.check(args, kwargs)
        if options.destination.inherits:
            task = context.current()
            if task is not None and task.equipment.captures:
                options = inherit_task(options, task.equipment, self._function.__name__)
        return _one_or_many(engine().submit(self._function, args, kwargs, options))

    def _check(self, given: Mapping[str, Any]) -> TaskOptions:
        options = task_options(given, generator=self._is_generator)
        return placed_task(options, given, self._function.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._function.__name__
        raise TypeError(f"Remote functions cannot be called directly: use {name}.remote(...) instead of {name}(...)")

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function.__name__})"


class RemoteFunctionWithOptions:
    """A remote function with options for some calls. Made by `RemoteFunction.options`."""

    def __init__(self, function: RemoteFunction, options: TaskOptions) -> None:
        self._remote_function = function
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """As `RemoteFunction.remote`."""
        return self._remote_function.submit(self._options, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> FunctionNode:
        """As `RemoteFunction.bind`."""
        return self._remote_function.bound(self, args, kwargs)


class ActorClassInheritanceException(TypeError):  # noqa: N818  Ray's name
    """A class statement names an actor class as a base."""


class ActorClass:
    """A class whose instances are actors. Made by `remote`."""

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        self._cls = cls
        self._given = dict(options)
        self._options = self._check(self._given)
        self._constructor = (
            _Arity(inspect.getattr_static(cls, "__init__"), bound=True)
            if not _has_default_init(cls)
            else _Arity(lambda: None)
        )
        self._arities = {name: _Arity(function, bound=bound) for name, function, bound in _methods(cls)}
        self._declared = {name: _declared(name, function) for name, function, _ in _methods(cls)}
        self._declared.update(dict.fromkeys(SPECIAL_METHODS, MethodOptions()))
        self.__name__, self.__doc__, self.__module__ = cls.__name__, cls.__doc__, cls.__module__

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Create an actor; returns its handle at once. It lives as long as a handle to it (or a copy, in any process)
        does.
        """
        return self.create(self._options, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """A node of a DAG: the actor is created when the DAG is executed."""
        return self.bound(self, args, kwargs)

    def bound(
        self, maker: ActorClass | ActorClassWithOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ClassNode:
        """The node of an actor that `maker` creates; what every ``bind`` of this class comes to."""
        return ClassNode(maker, self._cls, args, kwargs)

    def options(self, **options: Any) -> ActorClassWithOptions:
        """The same class with other options for the actors made through the result."""
        if "concurrency_groups" in options:
            raise ValueError("concurrency_groups are given with @remote(...), not with .options(...)")
        return ActorClassWithOptions(self, self._check({**self._given, **options}))

    def create(self, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
        """Check the call and hand it to the engine; what every ``remote`` of this class comes to."""
        self._constructor.check(args, kwargs)
        if options.must_be_in_order and lanes_wanted(self._cls, options.max_concurrency, options.concurrency_groups):
            raise ValueError(
                f"allow_out_of_order_execution=False is for actors that run one call at a time; {self._cls.__name__} "
                "has coroutines, max_concurrency over 1, or concurrency groups"
            )
        if options.destination.inherits:
            task = context.current()
            if task is not None and task.equipment.captures:
                options = inherit_actor(options, task.equipment, self._cls.__name__)
        methods = {name: _how(declared, options) for name, declared in self._declared.items()}
        identity = engine().create_actor(self._cls, methods, args, kwargs, options)
        return ActorHandle(identity, self._arities)

    def _check(self, given: Mapping[str, Any]) -> ActorOptions:
        return placed_actor(actor_options(given), given, self._cls.__name__)

    def __mro_entries__(self, _bases: tuple[object, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            f"actor classes cannot be inherited from: let the new class inherit from plain {self._cls.__name__}, and "
            "put @remote on both"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._cls.__name__
        raise TypeError(f"Actors cannot be instantiated directly: use {name}.remote(...) instead of {name}(...)")

    def __repr__(self) -> str:
        return f"ActorClass({self._cls.__name__})"


class ActorClassWithOptions:
    """An actor class with options for some actors. Made by `ActorClass.options`."""

    def __init__(self, cls: ActorClass, options: ActorOptions) -> None:
        self._actor_class = cls
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """As `ActorClass.remote`."""
        return self._actor_class.create(self._options, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """As `ActorClass.bind`."""
        return self._actor_class.bound(self, args, kwargs)


class ActorHandle:
    """Speaks to an actor: each of its public methods is an attribute with ``.remote``. Can be passed to tasks and
    actors.

    Handles to the same actor are equal. The calls of one process run in the order in which they were made.
    """

    def __init__(self, identity: ActorIdentity, arities: Mapping[str, _Arity] | None = None) -> None:
        self._identity = identity
        self._arities = arities

    def __getattr__(self, name: str) -> ActorMethod:
        identity = self.__dict__.get("_identity")
        if identity is None or name not in identity.methods:
            what = "an actor handle" if identity is None else f"actor class {identity.class_name}"
            close = [] if identity is None else difflib.get_close_matches(name, list(identity.methods), n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise AttributeError(f"{what} has no method {name!r}{hint}")
        # Kept, so that the next look-up is a plain attribute. It holds the identity and not the handle: a cycle would
        # keep the actor alive until the garbage collector runs.
        method = ActorMethod(identity, name, (self._arities or {}).get(name), identity.methods[name])
        self.__dict__[name] = method
        return method

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._identity.actor_id)  # Ray programs read it

    def __hash__(self) -> int:
        return hash(self._identity.actor_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._identity.actor_id == self._identity.actor_id

    def __repr__(self) -> str:
        return f"Actor({self._identity.class_name}, {self._identity.actor_id.hex()})"

    def __reduce__(self) -> tuple[Callable[..., ActorHandle], tuple[Any, ...]]:
        identity = self._identity
        return _rebuild_handle, (
            identity.actor_id,
            identity.class_name,
            dict(identity.methods),
            identity.ref,
            identity.max_pending_calls,
        )


class ActorMethod:
    """A method of an actor, seen through a handle."""

    __slots__ = ("_arity", "_how", "_identity", "_name")

    def __init__(self, identity: ActorIdentity, name: str, arity: _Arity | None, how: WireMethod) -> None:
        self._identity = identity
        self._name = name
        self._arity = arity
        self._how = how

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it; returns a ref at once."""
        if self._arity is not None:
            self._arity.check(args, kwargs)
        return _one_or_many(engine().call(self._identity, self._name, args, kwargs, how=self._how))

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options for the calls made through the result; they come before all others."""
        # By default the items of a generator stream; a method with a number of returns is none, or was said to be none.
        given = method_options(options, generator=self._how[0] < 0)
        num_returns, retries, retry_exceptions, group, backpressure = self._how
        how = (
            num_returns if given.num_returns is None else given.num_returns,
            retries if given.max_task_retries is None else given.max_task_retries,
            retry_exceptions if given.retry_exceptions is None else given.retry_exceptions,
            group if given.concurrency_group is None else given.concurrency_group,
            backpressure if given.backpressure is None else given.backpressure,
        )
        return ActorMethod(self._identity, self._name, self._arity, how)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """A node of a DAG: the call is made when the DAG is executed. With num_returns=n, n nodes."""
        call = ClassMethodNode(self, self._name, args, kwargs)
        num_returns = self._how[0]
        return call if num_returns < 2 else tuple(OutputNode(call, index) for index in range(num_returns))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly: use .{self._name}.remote(...) instead of .{self._name}(...)"
        )


def method(**options: Any) -> Callable[[F], F]:
    """Options of a method of an actor class: num_returns (also "streaming", "dynamic"), max_task_retries,
    retry_exceptions, concurrency_group.

    What ``.options`` at a call says comes first, then this, then the options of the actor.

    Example:
      >>> @shoal.remote
      ... class Splitter:
      ...     @shoal.method(num_returns=2)
      ...     def split(self, pair):
      ...         return pair

    Raises:
      ValueError, TypeError: an option that does not exist, or has an impossible value.
    """
    checked = method_options(options)

    def declare(function: F) -> F:
        setattr(function, _OPTIONS, checked)
        return function

    return declare


def _how(declared: MethodOptions, actor: ActorOptions) -> WireMethod:
    """How a method is called unless told otherwise: what it declares, else what the actor's options say."""
    return (
        1 if declared.num_returns is None else declared.num_returns,
        actor.max_task_retries if declared.max_task_retries is None else declared.max_task_retries,
        bool(declared.retry_exceptions),
        declared.concurrency_group or "",
        declared.backpressure or -1,
    )


def _declared(name: str, function: Callable[..., Any]) -> MethodOptions:
    """What a method says of itself: by `method`, and by being a generator."""
    options: MethodOptions = getattr(function, _OPTIONS, MethodOptions())
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if options.num_returns is None and is_generator:
        return replace(options, num_returns=STREAMING)
    if options.num_returns is not None and options.num_returns < 0 and not is_generator:
        raise ValueError(f"{name} has num_returns='streaming' or 'dynamic', but is no generator: it has no yield")
    return options


class _Arity:
    """Checks a call against a signature. Plain positional calls by two comparisons; others as Python itself would (3
    us).
    """

    __slots__ = ("_least", "_most", "_name", "_signature")

    def __init__(self, function: Callable[..., Any], *, bound: bool = False) -> None:
        self._name = getattr(function, "__name__", repr(function))
        self._signature: inspect.Signature | None
        try:
            parameters = parameters_of(function, bound=bound)
        except ValueError:  # some builtins have none: the call itself will tell
            self._signature, self._least, self._most = None, 0, 0
            return
        self._signature = inspect.Signature(parameters)
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needs_keyword = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._least = sum(1 for p in positional if p.default is p.empty)
        self._most = (
            -1 if needs_keyword else 10**9 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
        )

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises TypeError when the call would."""
        if not kwargs and self._least <= len(args) <= self._most:
            return
        if self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._name}(): {error}") from None


def _methods(cls: type) -> list[tuple[str, Callable[..., Any], bool]]:
    """(name, function, whether its first parameter is self or cls) of all methods but the special ones."""
    found = []
    for name, member in (
        inspect.getmembers_static(cls) if hasattr(inspect, "getmembers_static") else _static_members(cls)
    ):
        if name.startswith("__") and name != "__call__":
            continue
        if isinstance(member, staticmethod):
            found.append((name, member.__func__, False))
        elif isinstance(member, classmethod):
            found.append((name, member.__func__, True))
        elif inspect.isfunction(member):
            found.append((name, member, True))
    return found


def _has_default_init(cls: type) -> bool:
    return inspect.getattr_static(cls, "__init__") is object.__init__


def _static_members(cls: type) -> list[tuple[str, Any]]:
    """``inspect.getmembers_static`` for Python 3.10, which has none."""
    return [(name, inspect.getattr_static(cls, name)) for name in dir(cls)]


def _one_or_many(refs: Returns) -> Any:
    if isinstance(refs, ObjectRefGenerator):
        return refs
    if len(refs) == 1:
        return refs[0]
    return refs or None


def _rebuild_handle(
    actor_id: bytes, class_name: str, methods: dict[str, WireMethod], ref: ObjectRef | None, max_pending_calls: int
) -> ActorHandle:
    return ActorHandle(ActorIdentity(actor_id, class_name, methods, ref, max_pending_calls))


def identity_of(handle: object, what: str) -> ActorIdentity:
    """What the engine knows an actor by.

    Raises:
      ValueError: the argument is no handle.
    """
    if not isinstance(handle, ActorHandle):
        raise ValueError(f"{what} needs an actor handle, not {type(handle).__name__} {handle!r}")
    return handle._identity  # noqa: SLF001  handles have no public attributes but the actor's methods


def weak_handle(identity: ActorIdentity | None, name: str, namespace: str | None) -> ActorHandle:
    """The handle that ``get_actor`` gives: it does not keep the actor alive.

    Raises:
      ValueError: there is no such actor.
    """
    if identity is None:
        where = f" in namespace {namespace!r}" if namespace else " in this namespace"
        raise ActorHandleNotFoundError(
            f"Failed to look up actor with name {name!r}: no living actor has it{where}; it was never created, or died"
        )
    return ActorHandle(identity)
