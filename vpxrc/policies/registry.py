"""Policies by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from vpxrc.errors import InputError
from vpxrc.plugins import find_plugin, plugin_names
from vpxrc.policies.base import Policy

GROUP = "vpxrc.policies"


@dataclass(frozen=True)
class MadePolicy:
    """A policy that :func:`make_policy` has made.

    Attributes:
        spec: The spec that it was made from.
        module: Name of the module that its entry point names.
        policy: The policy.
    """

    spec: str
    module: str
    policy: Policy


_traced: ContextVar[list[MadePolicy] | None] = ContextVar("traced", default=None)


@contextmanager
def trace_policies() -> Iterator[list[MadePolicy]]:
    """Yield a list to which every policy is added that :func:`make_policy` makes in the block.

    A policy that makes others, as a checkpoint's plan, comes after them.
    """
    made: list[MadePolicy] = []
    token = _traced.set(made)
    try:
        yield made
    finally:
        _traced.reset(token)


def policy_names() -> list[str]:
    """Return the names of all installed policies."""
    return plugin_names(GROUP)


def make_policy(spec: str) -> Policy:
    """Make a policy from its name, or ``NAME:ARGUMENT`` for those that take one.

    Names come from the entry points ``vpxrc.policies`` of all installed packages, so another
    package can add its own; each names a callable that takes the argument, if any, as a string.

    Raises:
        InputError: There is no such policy, or it refuses the argument.
    """
    name, _, argument = spec.partition(":")
    entry = find_plugin(GROUP, name, "policy")
    factory = entry.load()
    try:
        policy = factory(argument) if argument else factory()
    except TypeError as error:
        raise InputError(f"policy {spec!r}: {error}") from error
    if not isinstance(policy, Policy):
        raise InputError(f"policy {name!r} is not a vpxrc.Policy")
    traced = _traced.get()
    if traced is not None:
        traced.append(MadePolicy(spec, entry.module, policy))
    return policy
