"""What this process has asked a Ray cluster for, and no machine of it has.

On one machine such work fails. A cluster may grow, so here it waits, as Ray has it; but nobody waits in silence: who
has waited in `get` or `wait` for some seconds is told which demands of this process no machine could meet, once each.

    shoal: get has been waiting for 5 s: add() needs GPU 1, the largest node of the cluster has GPU 0: it waits until a
    node joins that has
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...config import from_environment
from ...options import Destination
from ...resources import ResourceSet
from ...scheduling import bundles
from ...scheduling.labels import NodeRule
from ..base import NodeDescription

#: Demands that are remembered: what is made of so many functions and options says nothing to anybody.
_MOST = 256
#: Stands for one that is not among them any more.
_TOLD = object()


class Demands:
    """Of one process. Any thread."""

    def __init__(self, nodes: Callable[[], Sequence[NodeDescription]]) -> None:
        self.notice_s = from_environment().notice_s
        self._nodes = nodes
        self._asked: dict[tuple[str, ResourceSet, NodeRule | None], None] = {}

    def ask(self, what: str, shape: Mapping[str, int], destination: Destination) -> None:
        """Work has been submitted that needs this. Inside a placement group it has what it needs."""
        if not bundles.group_of(shape) and len(self._asked) < _MOST:
            self._asked[what, ResourceSet(shape), destination.rule] = None

    def patience(self, timeout_s: float | None) -> tuple[float | None, float | None]:
        """How long to wait until something is said, and how long then; None: for ever.

        Nothing is said where the first is the whole of `timeout_s`: that is short, or notices are off.
        """
        if self.notice_s <= 0 or (timeout_s is not None and timeout_s <= self.notice_s):
            return timeout_s, 0.0
        return self.notice_s, None if timeout_s is None else timeout_s - self.notice_s

    def tell(self, verb: str) -> None:
        """Somebody has waited in `verb` for `notice_s`."""
        if not self._asked:
            return
        nodes = [node for node in self._nodes() if node.is_alive]
        for what, wanted, rule in list(self._asked):
            missing = unmet(wanted, rule, nodes)
            # Another thread may be about to tell of it, too.
            if missing and self._asked.pop((what, wanted, rule), _TOLD) is not _TOLD:
                sys.stderr.write(
                    f"shoal: {verb} has been waiting for {self.notice_s:g} s: {what} {missing}: it waits until a node "
                    "joins that has\n"
                )


def unmet(wanted: ResourceSet, rule: NodeRule | None, nodes: Iterable[NodeDescription]) -> str:
    """Why none of these nodes will do, whatever runs there now; empty if one will."""
    largest: dict[str, int] = {}
    labelled = False
    for node in nodes:
        if rule is not None and rule.mismatch(node.labels):
            continue
        labelled = True
        if wanted.fits(ResourceSet(node.total)):
            return ""
        for name, amount in node.total.items():
            largest[name] = max(amount, largest.get(name, 0))
    if rule is not None and not labelled:
        return f"needs a node with label {rule.describe()}, and the cluster has none"
    if wanted.fits(ResourceSet(largest)):
        return f"needs {wanted.describe()}, and no node of the cluster has it all"
    return wanted.shortage(ResourceSet(largest), "the largest node of the cluster")
