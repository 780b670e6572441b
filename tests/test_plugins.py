"""Entry points by name: found once, and found when their package comes later."""

import gymnasium
import pytest

import vpxrc.envs  # noqa: F401 - registers the environments
from vpxrc import plugins
from vpxrc.errors import InputError


def install(site, names):
    """Install a package without code, whose entry points have these names."""
    information = site / "late-1.0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    lines = "".join(f"{name} = late:{name}\n" for name in names)
    (information / "entry_points.txt").write_text(f"[vpxrc.delays]\n{lines}")


def test_a_package_that_is_installed_later_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"unknown late 'b': choose from $"):
        plugins.find_plugin("vpxrc.delays", "b", "late")
    install(tmp_path, ["b", "a"])
    assert plugins.find_plugin("vpxrc.delays", "b", "late").value == "late:b"
    assert plugins.plugin_names("vpxrc.delays") == ["a", "b"]
    with pytest.raises(InputError, match="unknown late 'c': choose from a, b"):
        plugins.find_plugin("vpxrc.delays", "c", "late")


def test_an_import_path_has_its_own(tmp_path, monkeypatch):
    install(tmp_path, ["here"])
    with monkeypatch.context() as context:
        context.syspath_prepend(tmp_path)
        assert plugins.find_plugin("vpxrc.delays", "here", "late").name == "here"
    with pytest.raises(InputError, match="unknown late"):
        plugins.find_plugin("vpxrc.delays", "here", "late")


def test_an_episode_does_not_look_through_the_installed_packages(monkeypatch):
    env = gymnasium.make("vpxrc/Small-v0")
    env.reset(seed=1)

    def look(**selection):
        raise AssertionError(f"looked for {selection}")

    monkeypatch.setattr(plugins, "entry_points", look)
    env.reset(seed=1)
    while not env.step([0.0, 0.0])[2]:
        pass
    env.close()
