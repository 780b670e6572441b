"""Checks of arguments when an environment is made, one clear line each."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vpxrc.errors import InputError


class UnexpectedArgumentError(InputError, TypeError):
    """There is no such argument. Libraries that try arguments out look for a TypeError."""


def check_integer(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """Return a value that is an integer in a range.

    Raises:
        InputError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} must be an integer, not {value!r:.80}")
    if not low <= value <= high:
        limits = f"at least {low}" if high == math.inf else f"in {low}..{high}"
        raise InputError(f"{name} must be {limits}, not {value}")
    return int(value)


def check_positive(name: str, value: Any) -> float:
    """Return a value that is a finite number above 0.

    Raises:
        InputError: It is not.
    """
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not is_number or not 0 < value < math.inf:
        raise InputError(f"{name} must be a finite number above 0, not {value!r:.80}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Return a value that is True or False.

    Raises:
        InputError: It is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, not {value!r:.80}")
    return bool(value)


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> Any:
    """Return a value that is one of some choices.

    Raises:
        InputError: It is none of them.
    """
    if not isinstance(value, str | None) or value not in choices:
        words = ", ".join(repr(choice) for choice in choices)
        raise InputError(f"{name} must be one of {words}, not {value!r:.80}")
    return value
