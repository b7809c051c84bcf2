"""Which files of a folder are left out: patterns as in ``.gitignore``. Pure.

    Rules          the patterns of one file or list, relative to one folder; the last that matches decides
    is_ignored     several of them, outermost first: an inner ``.gitignore`` overrules an outer one

As in git, a folder that is ignored is not entered, so nothing inside it can be brought back by ``!pattern``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern, as a regular expression over the path below the folder of its file."""

    expression: re.Pattern[str]
    folders_only: bool
    brings_back: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns that hold below the folder `base` (``a/b/``, empty for the root)."""

    base: str
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, lines: Iterable[str], base: str = "") -> Rules:
        """Read lines of a ``.gitignore`` that lies in `base`."""
        return cls(base, tuple(rule for line in lines if (rule := _rule(line)) is not None))

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """Whether `path`, from the root and without a slash at its end, is ignored; None: nothing here says."""
        if not path.startswith(self.base):
            return None
        below = path[len(self.base) :]
        for rule in reversed(self.rules):
            if (is_folder or not rule.folders_only) and rule.expression.fullmatch(below):
                return not rule.brings_back
        return None


def is_ignored(path: str, stack: Sequence[Rules], *, is_folder: bool) -> bool:
    """Whether the innermost rules that say something about `path` leave it out.

    Args:
      stack: outermost first.
    """
    for rules in reversed(stack):
        verdict = rules.verdict(path, is_folder=is_folder)
        if verdict is not None:
            return verdict
    return False


def _rule(line: str) -> Rule | None:
    pattern = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
    if not pattern or pattern.startswith("#"):
        return None
    brings_back = pattern.startswith("!")
    if brings_back:
        pattern = pattern[1:]
    folders_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    if not pattern:
        return None
    anchored = "/" in pattern
    text = _expression(pattern.lstrip("/"))
    return Rule(re.compile(text if anchored else f"(?:.*/)?{text}", re.DOTALL), folders_only, brings_back)


#: What stands for more than itself in a pattern, the more special first.
_TOKEN = re.compile(
    r"""(?P<deep> (?: ^ | (?<=/) ) \*\*/ )
      | (?P<all> (?<=/) \*\* $ )
      | (?P<some> \*+ )
      | (?P<one> \? )
      | \[ (?P<set> [!^]? \]? [^]]* ) \]
      | \\ (?P<plain> . )
      | (?P<letter> . )""",
    re.DOTALL | re.VERBOSE,
)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression over a whole path."""
    parts = []
    for found in _TOKEN.finditer(pattern):
        kind = found.lastgroup
        if kind == "deep":
            parts.append("(?:.*/)?")
        elif kind == "all":
            parts.append(".+")
        elif kind == "some":
            parts.append("[^/]*")
        elif kind == "one":
            parts.append("[^/]")
        elif kind == "set":
            inside = found["set"].replace("\\", "\\\\").replace("[", "\\[")
            inside = f"^{inside[1:]}/" if inside.startswith(("!", "^")) else inside
            parts.append(f"[{inside}]" if not inside.startswith("]") else f"[\\{inside}]")
        else:
            parts.append(re.escape(found["plain"] or found["letter"]))
    return "".join(parts)
