"""Whether a request fits a policy, and the request as the policy takes it: arrays of its own dtypes. Pure.

Every way in ends here, so that a policy never sees what it cannot act on. What is checked: the columns and their
shapes, dtypes (whole numbers for whole numbers; any number for real ones), that numbers are finite and choices exist,
that a mask allows something, the size of states, and that all parts have the same number of rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from .errors import BadObservation, BadRequest
from .requests import ActRequest, Columns, PolicyInfo
from .spaces import LeafSpace, choice_groups, columns_of

#: What a session may be called: it stands in logs.
SESSION = re.compile(r"[!-~]{1,128}")
#: Longest time that a request may give itself.
MAX_TIMEOUT_S = 3600.0


class Checker:
    """Checks requests for one policy; what it needs of the spaces is worked out once."""

    def __init__(self, info: PolicyInfo) -> None:
        self._name = info.name
        leaves = columns_of(info.observation_space)
        self._columns = [(name, _Column(f"observations.{name}", leaf)) for name, leaf in leaves.items()]
        self._states = _Column("state", LeafSpace(kind="box", shape=(info.state_size,), dtype="float32"))
        self._first, self._is_single = self._columns[0][0], len(self._columns) == 1
        self._groups = choice_groups(info.action_space)
        self._group_starts = np.cumsum([0, *self._groups[:-1]]) if self._groups else np.zeros(0, np.int64)
        self._state_size = info.state_size
        self._max_rows = info.max_rows

    def checked(self, request: ActRequest) -> ActRequest:
        """The request with arrays of the policy's dtypes, in C order; arrays that have them are not copied. It is the
        same one if it has nothing but a column that fits, as most have.

        Raises:
          BadObservation: something does not fit the policy; names the field, what came and what is taken.
          BadRequest: the request contradicts itself.
        """
        columns = self._checked_columns(request.observations)
        rows = len(columns[self._first])
        if not 1 <= rows <= self._max_rows:
            raise BadObservation(
                f"{rows} rows; {self._name!r} takes 1 to {self._max_rows} in a request", field="observations"
            )
        if not self._is_single:
            self._check_lengths(columns, rows)
        if request.timeout_s is not None:
            _check_timeout(request.timeout_s)
        if request.sessions is not None:
            self._check_sessions(request, rows)
        mask, state, starts = request.action_mask, request.state, request.episode_start
        if columns is request.observations and mask is None and state is None and starts is None:
            return request
        return ActRequest(  # less than half of the time of dataclasses.replace
            observations=columns,
            action_mask=None if mask is None else self._checked_mask(mask, rows),
            sessions=request.sessions,
            state=None if state is None else self._checked_state(state, rows),
            episode_start=None if starts is None else _flags(starts, (rows,), "episode_start"),
            deterministic=request.deterministic,
            want_log_prob=request.want_log_prob,
            want_value=request.want_value,
            want_drawn=request.want_drawn,
            timeout_s=request.timeout_s,
        )

    def _checked_columns(self, observations: Columns) -> Columns:
        if len(observations) != len(self._columns):
            self._complain_about_names(observations)
        columns: Columns = {}
        is_same = self._is_single  # several come in the policy's order
        for name, column in self._columns:
            array = observations.get(name)
            if array is None:
                self._complain_about_names(observations)
            else:
                columns[name] = checked = column.checked(array)
                is_same = is_same and checked is array
        return observations if is_same else columns

    def _check_lengths(self, columns: Columns, rows: int) -> None:
        for name, array in columns.items():
            if len(array) != rows:
                raise BadObservation(f"{len(array)} rows; {self._first!r} has {rows}", field=f"observations.{name}")

    def _complain_about_names(self, observations: Mapping[str, np.ndarray]) -> None:
        """Raises what is wrong with the names of the columns."""
        names = [name for name, _ in self._columns]
        for name in observations:
            if name not in names:
                raise BadObservation(
                    f"{self._name!r} has no such column; it has {', '.join(names)}", field=f"observations.{name}"
                )
        for name in names:
            if observations.get(name) is None:
                raise BadObservation(f"missing; {self._name!r} takes {', '.join(names)}", field=f"observations.{name}")

    def _check_sessions(self, request: ActRequest, rows: int) -> None:
        sessions = request.sessions
        assert sessions is not None
        if len(sessions) != rows:
            raise BadObservation(f"{len(sessions)} names for {rows} rows", field="sessions")
        if len(set(sessions)) != rows:
            raise BadRequest("a session has one observation in a request, here one has two", field="sessions")
        for session in sessions:
            if SESSION.fullmatch(session) is None:
                raise BadRequest("a session's name has 1 to 128 letters of ASCII and no space", field="sessions")
        if request.state is not None:
            raise BadRequest("either the server keeps states, by sessions, or the caller does, in state", field="state")

    def _checked_mask(self, mask: np.ndarray, rows: int) -> np.ndarray:
        if not self._groups:
            raise BadObservation(f"the actions of {self._name!r} have nothing to choose from", field="action_mask")
        allowed = _flags(mask, (rows, sum(self._groups)), "action_mask")
        any_allowed = np.logical_or.reduceat(allowed, self._group_starts, axis=1)
        if not any_allowed.all():
            row = int(np.argmin(any_allowed.all(axis=1)))
            raise BadObservation(f"row {row} allows no choice in a part of the action", field="action_mask")
        return allowed

    def _checked_state(self, state: np.ndarray, rows: int) -> np.ndarray:
        if self._state_size == 0:
            raise BadObservation(f"{self._name!r} has no recurrent state: leave it away", field="state")
        return self._states.checked(_of_shape(state, (rows, self._state_size), np.dtype(np.float32), "state"))


class _Column:
    """Checks one array of a request, of which a space tells what each row is."""

    def __init__(self, field: str, leaf: LeafSpace) -> None:
        self._field = field
        self._shape, self._dtype = leaf.shape, np.dtype(leaf.dtype)
        self._is_real = self._dtype.kind == "f"
        self._low: np.ndarray | None = None
        self._stop = np.zeros(0)
        if leaf.kind != "box":
            self._low = np.broadcast_to(np.reshape(leaf.start, leaf.shape if len(leaf.start) > 1 else ()), leaf.shape)
            self._stop = self._low + np.reshape(leaf.nvec, leaf.shape)

    def checked(self, array: object) -> np.ndarray:
        if not isinstance(array, np.ndarray) or array.shape[1:] != self._shape or not array.ndim:
            raise _of_another_shape(array, self._shape, self._dtype, self._field)
        if not self._is_real:
            return self._choices(array)
        if array.dtype != self._dtype:
            array = self._as_real(array)
        array = np.ascontiguousarray(array)
        first = first_not_finite(array)
        if first is not None:
            place = [int(i) for i in np.unravel_index(first, array.shape)]
            raise BadObservation(f"not a finite number at {place}", field=self._field)
        return array

    def _as_real(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "iuf":
            raise BadObservation(f"{array.dtype}; the policy takes {self._dtype}", field=self._field)
        with np.errstate(over="ignore"):  # what grew too large is infinite, and told
            return array.astype(self._dtype)

    def _choices(self, array: np.ndarray) -> np.ndarray:
        """Whole numbers; where they are choices, such as there are."""
        whole = self._whole_numbers(array)
        if self._low is not None:
            outside = (whole < self._low) | (whole >= self._stop)
            if outside.any():
                row = int(np.argmax(outside.reshape(len(whole), -1).any(axis=1)))
                raise BadObservation(
                    f"row {row} is {_shown(whole[row])}; there are {_shown(self._low)} to {_shown(self._stop - 1)}",
                    field=self._field,
                )
        return whole

    def _whole_numbers(self, array: np.ndarray) -> np.ndarray:
        """Pictures of fractions in a space of bytes would become all zeros, and what is too large something else."""
        if array.dtype == self._dtype:
            return np.ascontiguousarray(array)
        if array.dtype.kind not in "iuf":
            raise BadObservation(f"{array.dtype}; the policy takes {self._dtype}", field=self._field)
        with np.errstate(invalid="ignore"):  # the comparison tells
            whole = array.astype(self._dtype)
        if not (whole == array).all():
            raise BadObservation(f"numbers that are no {self._dtype}: {_shown(array)}", field=self._field)
        return np.ascontiguousarray(whole)


def first_not_finite(array: np.ndarray) -> int | None:
    """Place, in C order, of the first number that is not finite; None if all are."""
    if not array.size:
        return None
    finite = np.isfinite(array)
    place = finite.argmin()  # half of the time of ``all`` for few numbers, and none that is longer for many
    return None if finite.item(place) else int(place)


def _flags(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    array = _of_shape(array, shape, np.dtype(bool), name)
    if array.dtype.kind not in "biu" or (array.dtype.kind != "b" and not np.isin(array, (0, 1)).all()):
        raise BadObservation(f"{array.dtype}; it takes booleans, or 0 and 1", field=name)
    return np.ascontiguousarray(array, bool)


def _of_shape(array: object, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    """Raises BadObservation unless it has the shape, whose first number is N."""
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise _of_another_shape(array, shape[1:], dtype, name)
    return array


def _of_another_shape(array: object, row: tuple[int, ...], dtype: np.dtype, name: str) -> BadObservation:
    wanted = "".join(f", {size}" for size in row)
    came = f"shape {list(array.shape)}" if isinstance(array, np.ndarray) else f"no array but {type(array).__name__}"
    return BadObservation(f"{came}; the policy takes [N{wanted}] of {dtype}", field=name)


def _check_timeout(timeout_s: float) -> None:
    if not (math.isfinite(timeout_s) and 0 < timeout_s <= MAX_TIMEOUT_S):
        raise BadRequest(f"{timeout_s}; it is more than 0 and at most {MAX_TIMEOUT_S:g} seconds", field="timeout_s")


def _shown(values: np.ndarray) -> str:
    return np.array2string(np.asarray(values), threshold=8, separator=", ").replace("\n", "")
