"""Policies around policies: a wrapper passes on everything that it does not change."""

import inspect

import numpy as np
import pytest

from vpxrc import Decision, EncoderOptions, Policy, PolicyWrapper, encode, make_policy
from vpxrc.policies.constant import ConstantQ
from vpxrc.policies.replay import Replay

OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=5, auto_alt_ref=6)


class Spy(Policy):
    """Notes what it is asked."""

    training_clips = frozenset({"a clip"})

    def __init__(self):
        self.calls = []

    def options(self, options):
        self.calls.append("options")
        return options

    def begin(self, episode):
        self.calls.append("begin")

    def plan_group(self, group):
        self.calls.append("plan_group")
        return np.full(group.size, 90)

    def decide(self, frame):
        self.calls.append("decide")
        return Decision(110)

    def overruled(self, frame, decision):
        self.calls.append("overruled")

    def review(self, log):
        self.calls.append("review")
        return log if self.calls.count("review") == 2 else None


METHODS = [
    name
    for name, value in vars(Policy).items()
    if not name.startswith("_") and inspect.isfunction(value)
]


def test_every_method_is_passed_on():
    assert set(METHODS) <= set(vars(PolicyWrapper)) & set(vars(Spy))
    spy = Spy()
    wrapper = PolicyWrapper(PolicyWrapper(spy))
    for name in METHODS:
        count = len(inspect.signature(getattr(Policy, name)).parameters) - 1
        group = type("Group", (), {"size": 3})
        getattr(wrapper, name)(*[group] * count)
    assert spy.calls == METHODS
    assert (wrapper.observes, wrapper.plans_groups) == (False, True)
    assert wrapper.training_clips == {"a clip"}
    assert PolicyWrapper(make_policy("libvpx-vbr")).observes


def test_an_encode_is_that_of_the_policy_inside(video):
    spies = Spy(), Spy()
    own = encode(video, OPTIONS, spies[0])
    wrapped = encode(video, OPTIONS, PolicyWrapper(spies[1]))
    assert wrapped == own and wrapped.encodes == own.encodes == 2
    assert spies[0].calls == spies[1].calls
    # To the bit only because the provisional q of the TPL pass goes along.
    assert encode(video, OPTIONS, PolicyWrapper(Replay(own))).stream == own.stream


class Planner(ConstantQ):
    def plan_group(self, group):
        return None


class Plan:
    def plan_group(self, group):
        return None


class Mixed(Plan, ConstantQ):
    pass


class Silent(Planner):
    plans_groups = False


class Again(Silent):
    def plan_group(self, group):
        return None


class Watcher(PolicyWrapper):
    def __init__(self, policy):
        super().__init__(policy)
        self.sizes = []

    def plan_group(self, group):
        self.sizes.append(group.size)
        return super().plan_group(group)


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (ConstantQ(100), False),
        (Planner(100), True),
        (Mixed(100), True),
        (Silent(100), False),
        (Again(100), True),
        (PolicyWrapper(ConstantQ(100)), False),
        (PolicyWrapper(Planner(100)), True),
        (Watcher(ConstantQ(100)), True),
        (Watcher(PolicyWrapper(Planner(100))), True),
    ],
)
def test_who_is_asked_for_groups(video, policy, asked):
    assert policy.plans_groups is asked
    with OPTIONS.open(video, plan_groups=policy.plans_groups) as session:
        assert session.state.name == ("GROUP" if asked else "FRAME")


def test_a_wrapper_that_watches_groups_changes_nothing(video):
    watcher = Watcher(ConstantQ(100))
    assert encode(video, OPTIONS, watcher).stream == encode(video, OPTIONS, ConstantQ(100)).stream
    assert len(watcher.sizes) > 1
