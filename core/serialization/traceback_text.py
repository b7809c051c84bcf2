"""The text of an exception: its traceback without the runtime's frames, its type and its message.

A way through the code, which is its code objects and where they were, always has the same text, so it is made once.
Python's `traceback` looks for each frame whether its file has changed, and compiles the line to underline a part of it:
0.2 ms for an exception that a server refuses a request by, a thousand times a second.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import CodeType

from ..errors import ShoalError

#: Frames of files under this folder are the runtime's, not the user's.
_RUNTIME = str(Path(__file__).absolute().parent.parent / "_")[:-1]
_HEADER = "Traceback (most recent call last):\n"
#: Texts that are kept, and frames of one: a recursion without end has a thousand.
_MOST_KEPT, _MOST_FRAMES = 256, 32
#: What Python adds to the message of these depends on the frames' variables.
_WITH_HINTS = (NameError, AttributeError, ImportError, SyntaxError)
#: By its name: Python 3.10 has none, but packages that bring theirs.
_GROUP = "BaseExceptionGroup"

#: Where the line of a frame does not follow from its instruction: that of a traceback made by hand may be any.
_LINES_BY_FRAME = sys.version_info < (3, 11)

#: (id of a code object, instruction, line or 0), frame by frame -> text, whether a frame is the user's, and the code
#: objects, which keep their ids while they are here.
_kept: dict[tuple[int, ...], tuple[str, bool, list[CodeType]]] = {}


def told(exception: BaseException, *, ran: bool) -> str:
    """Traceback and message.

    Args:
      ran: What raised it had its arguments and was begun; otherwise an error of the runtime is told as that of an
        argument.
    """
    if _is_by_itself(exception):
        frames, is_users = _frames(exception)
        text = frames + (message := _message(exception))
    else:
        tree = _tree(exception)
        is_users = any(map(_is_users, tree.stack))
        message = "".join(tree.format_exception_only())
        _hide_runtime(tree)
        text = "".join(tree.format()).removeprefix(_HEADER)
    if not ran and isinstance(exception, ShoalError) and not is_users:
        text = f"At least one of the input arguments for this task could not be computed:\n{message}"
    return text.rstrip("\n")


def summary(exception: BaseException) -> str:
    """``ValueError: text``; also of exceptions whose ``__str__`` or ``__getattr__`` raises."""
    try:
        return _message(exception).strip()
    except Exception:  # noqa: BLE001  the exception's class is the user's code and may raise anything
        return type_name(exception)


def type_name(exception: BaseException) -> str:
    """Module and name of its class."""
    cls = type(exception)
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_by_itself(exception: BaseException) -> bool:
    """Whether its text is the frames' and its own, and depends on nothing else."""
    if isinstance(exception, _WITH_HINTS) or exception.__cause__ is not None:
        return False
    if any(cls.__name__ == _GROUP for cls in type(exception).__mro__):
        return False
    return exception.__context__ is None or exception.__suppress_context__


def _frames(exception: BaseException) -> tuple[str, bool]:
    """The text of its frames, and whether one is the user's."""
    codes: list[CodeType] = []
    way: list[int] = []
    link = exception.__traceback__
    while link is not None and len(codes) <= _MOST_FRAMES:
        codes.append(link.tb_frame.f_code)
        way += (id(codes[-1]), link.tb_lasti, link.tb_lineno if _LINES_BY_FRAME else 0)
        link = link.tb_next
    kept = _kept.get(tuple(way)) if link is None else None
    if kept is None:
        tree = _tree(exception)
        is_users = any(map(_is_users, tree.stack))
        _hide_runtime(tree)
        kept = "".join(tree.stack.format()), is_users, codes
        if link is None:
            if len(_kept) >= _MOST_KEPT:
                _kept.clear()
            _kept[tuple(way)] = kept
    return kept[:2]


def _tree(exception: BaseException) -> traceback.TracebackException:
    return traceback.TracebackException(type(exception), exception, exception.__traceback__, compact=True)


def _message(exception: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(exception), exception))


def _hide_runtime(tree: traceback.TracebackException) -> None:
    """Takes the runtime's frames out of the exception and of those it is chained to. Where all are the runtime's, all
    stay.
    """
    pending: list[traceback.TracebackException | None] = [tree]
    while pending:
        node = pending.pop()
        if node is None:
            continue
        frames = [frame for frame in node.stack if _is_users(frame)]
        if frames:
            node.stack = traceback.StackSummary.from_list(frames)
        pending += [node.__cause__, node.__context__, *(getattr(node, "exceptions", None) or ())]


def _is_users(frame: traceback.FrameSummary) -> bool:
    return not frame.filename.startswith(_RUNTIME)
