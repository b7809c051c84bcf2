"""Classic DAGs: calls that are bound now and made when the whole is executed.

    with InputNode() as given:                         f.bind        FunctionNode
        counter = Counter.bind(10)                     Counter.bind  ClassNode, an actor for each execution
        dag = f.bind(given[0], counter.add.bind(1))    add.bind      ClassMethodNode, on a bound class or a live handle
    ref = dag.execute(5)

Executing makes each call once, whatever number of others use its result, after those that it depends on; nobody waits
for results, which travel as refs. Calls bound to one class node run in the order in which they were bound, also those
that nothing depends on. A node may stand in lists, tuples, sets and dicts among the arguments; what is executed then
gets its ref there, as with any task.

Written on ``.remote`` and ``.options`` alone; knows no engine. Compiled graphs are not here. What a node does for the
others has a leading underscore: plain names are left to the methods and inputs that attributes of nodes stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

Resolve = Callable[["DAGNode"], Any]


class DAGNode(ABC):
    """A bound call, or an input."""

    def __init__(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self._bound_args = tuple(args)
        self._bound_kwargs = dict(kwargs or {})

    def execute(self, *args: Any, _ray_cache_refs: bool = False, **kwargs: Any) -> Any:
        """Make all calls of the DAG that ends here.

        Args:
          args, kwargs: what its `InputNode` stands for.
          _ray_cache_refs: accepted for Ray's sake, which keeps the refs of all calls for Ray Serve.

        Returns:
          What ``.remote`` of this call gives: a ref or a list of refs; the handle, of a class; the value, of an input.

        Raises:
          ValueError: the DAG has two different inputs.
          TypeError, ...: as the calls themselves.
        """
        results: dict[int, Any] = {}
        order = _in_order(self)
        if len({id(node) for node in order if isinstance(node, InputNode)}) > 1:
            raise ValueError("Each DAG should only have one unique InputNode, this one has several")
        given = args[0] if len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)
        for node in order:
            results[id(node)] = node._make(lambda part: results[id(part)], given)
        return results[id(self)]

    @abstractmethod
    def _make(self, resolve: Resolve, given: Any) -> Any:
        """Make this one call.

        Args:
          resolve: what has become of a node that this one depends on.
          given: what the input stands for.
        """

    def _depends_on(self) -> Iterator[DAGNode]:
        """The nodes to be made before this one."""
        yield from _nodes_in((self._bound_args, self._bound_kwargs))

    def _arguments(self, resolve: Resolve) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with results in place of nodes."""
        args, kwargs = _replaced((self._bound_args, self._bound_kwargs), resolve)
        return args, kwargs

    def get_args(self) -> tuple[Any, ...]:
        """The positional arguments as they were bound."""
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        """The keyword arguments as they were bound."""
        return dict(self._bound_kwargs)

    def experimental_compile(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises NotImplementedError: shoal has no compiled graphs."""
        raise NotImplementedError("compiled graphs are not in shoal: use execute(), whose calls need no compiling")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be sent: a node may stand in the arguments of bind() themselves, or there in a list, "
            "tuple, set or dict, and nowhere else"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._title()})"

    def _title(self) -> str:
        return ""


class FunctionNode(DAGNode):
    """A task. Made by ``bind`` of a remote function."""

    def __init__(self, function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._function = function
        self._name = name

    def _make(self, resolve: Resolve, given: Any) -> Any:
        args, kwargs = self._arguments(resolve)
        return self._function.remote(*args, **kwargs)

    def _title(self) -> str:
        return self._name


class ClassNode(DAGNode):
    """An actor. Made by ``bind`` of an actor class; its methods are attributes with ``bind``."""

    def __init__(self, maker: Any, cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """
        Args:
          maker: has ``.remote``.
          cls: whose methods it has.
        """
        super().__init__(args, kwargs)
        self._maker = maker
        self._cls = cls
        self._last_call: ClassMethodNode | None = None
        if any(isinstance(node, InputNode) for node in _in_order(self)):
            raise ValueError(
                f"{cls.__name__}.bind: InputNode stands for what execute() is given, and an actor's constructor cannot "
                "have it: pass it to a method"
            )

    def _make(self, resolve: Resolve, given: Any) -> Any:
        args, kwargs = self._arguments(resolve)
        return self._maker.remote(*args, **kwargs)

    def __getattr__(self, name: str) -> UnboundMethod:
        cls = self.__dict__.get("_cls")
        if cls is None or name.startswith("__") or not callable(getattr(cls, name, None)):
            raise AttributeError(f"{getattr(cls, '__name__', 'this node')} has no method {name!r} to bind")
        return UnboundMethod(self, name)

    def _title(self) -> str:
        return self._cls.__name__


class UnboundMethod:
    """A method of a bound class, before ``bind``."""

    def __init__(self, node: ClassNode, name: str, options: Mapping[str, Any] | None = None) -> None:
        self._node = node
        self._name = name
        self._options = dict(options or {})

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """A call of it, after those that were bound before."""
        before = self._node._last_call  # noqa: SLF001
        call = ClassMethodNode(self._node, self._name, args, kwargs, options=self._options, after=before)
        self._node._last_call = call  # noqa: SLF001
        return call

    def options(self, **options: Any) -> UnboundMethod:
        """The same method with options for the call."""
        return UnboundMethod(self._node, self._name, options)

    @property
    def remote(self) -> NoReturn:
        raise AttributeError(f".{self._name} of a bound class has no .remote: use .{self._name}.bind(...)")


class ClassMethodNode(DAGNode):
    """A call of an actor's method. Made by ``bind`` of a method of a bound class, or of a live handle."""

    def __init__(
        self,
        actor: Any,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        after: ClassMethodNode | None = None,
    ) -> None:
        """
        Args:
          actor: a `ClassNode`, or a method of a live handle.
          after: the call that was bound to the same class before.
        """
        super().__init__(args, kwargs)
        self._actor = actor
        self._name = name
        self._options = dict(options or {})
        self._after = after

    def _depends_on(self) -> Iterator[DAGNode]:
        if self._after is not None:
            yield self._after
        if isinstance(self._actor, ClassNode):
            yield self._actor
        yield from super()._depends_on()

    def _make(self, resolve: Resolve, given: Any) -> Any:
        method = self._actor
        if isinstance(method, ClassNode):
            method = getattr(resolve(method), self._name)
        if self._options:
            method = method.options(**self._options)
        args, kwargs = self._arguments(resolve)
        return method.remote(*args, **kwargs)

    def get_method_name(self) -> str:
        return self._name

    def _title(self) -> str:
        return self._name


class OutputNode(DAGNode):
    """One of several results of a call. ``bind`` of a live handle's method with num_returns=n gives n of them."""

    def __init__(self, call: DAGNode, index: int) -> None:
        super().__init__((call,))
        self._call = call
        self._index = index

    def _make(self, resolve: Resolve, given: Any) -> Any:
        return resolve(self._call)[self._index]

    def _title(self) -> str:
        return f"{self._call!r}[{self._index}]"


class InputNode(DAGNode):
    """Stands for what ``execute`` is given; its attributes and items for parts of that.

    To be used as a context manager around the making of the DAG.
    """

    def __init__(self, *args: Any, input_type: object = None, **kwargs: Any) -> None:
        """
        Args:
          input_type: accepted for Ray's sake, whose user interfaces show it.
        """
        if args or kwargs:
            raise ValueError("InputNode should not take any args or kwargs.")
        super().__init__()
        self._entered = False

    def __enter__(self) -> InputNode:
        self._entered = True
        return self

    def __exit__(self, *exception: object) -> None:
        """The DAG may be executed afterwards."""

    def _make(self, resolve: Resolve, given: Any) -> Any:
        if not self._entered:
            raise AssertionError("InputNode is to be used as a context manager: with InputNode() as given: ...")
        return given

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("__"):
            raise AttributeError(name)  # what copy and pickle look for is no part of the input
        return InputAttributeNode(self, name, is_item=False)

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        if not isinstance(key, (int, str)):
            raise AssertionError("Please only use int index or str as first-level key to access fields of dag input.")
        return InputAttributeNode(self, key, is_item=True)


class InputAttributeNode(DAGNode):
    """A part of what ``execute`` is given."""

    def __init__(self, whole: InputNode, key: int | str, *, is_item: bool) -> None:
        super().__init__((whole,))
        self._whole = whole
        self._key = key
        self._is_item = is_item

    @property
    def key(self) -> int | str:
        """Its index or name."""
        return self._key

    def _make(self, resolve: Resolve, given: Any) -> Any:
        whole = resolve(self._whole)
        return whole[self._key] if self._is_item or isinstance(whole, DAGInputData) else getattr(whole, str(self._key))

    def _title(self) -> str:
        return repr(self._key)


class DAGInputData:
    """What an `InputNode` stands for when ``execute`` is given more than one value: an item for each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._args = args
        self._kwargs = kwargs

    def __getitem__(self, key: int | str) -> Any:
        """
        Raises:
          IndexError, KeyError: nothing of that index or name was given.
        """
        return self._args[key] if isinstance(key, int) else self._kwargs[key]


class MultiOutputNode(DAGNode):
    """Several results. Executing gives a list."""

    def __init__(self, args: list[Any] | tuple[Any, ...]) -> None:
        if not isinstance(args, (list, tuple)):
            raise ValueError(f"MultiOutputNode takes a list of nodes, not {type(args).__name__} {args!r}")
        super().__init__(args)

    def _make(self, resolve: Resolve, given: Any) -> Any:
        args, _ = self._arguments(resolve)
        return list(args)


def _in_order(last: DAGNode) -> list[DAGNode]:
    """The node and all that it depends on, each after those that it depends on. A loop, as chains can be long."""
    done: dict[int, DAGNode] = {}
    stack = [(last, last._depends_on())]  # noqa: SLF001
    while stack:
        node, rest = stack[-1]
        part = next((part for part in rest if id(part) not in done), None)
        if part is None:
            done[id(node)] = node
            stack.pop()
        else:
            stack.append((part, part._depends_on()))  # noqa: SLF001
    return list(done.values())


def _nodes_in(value: Any) -> Iterator[DAGNode]:
    if isinstance(value, DAGNode):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _nodes_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _nodes_in(item)


def _replaced(value: Any, resolve: Resolve) -> Any:
    if isinstance(value, DAGNode):
        return resolve(value)
    if next(_nodes_in(value), None) is None:
        return value  # the very object, which may be of a class of its own
    if isinstance(value, dict):
        return {key: _replaced(item, resolve) for key, item in value.items()}
    items = [_replaced(item, resolve) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
