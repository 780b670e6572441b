"""Workflows, hooks and forms name only what exists, and workflows may do only what they must."""

import importlib.metadata
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
if not (ROOT / ".github").is_dir():
    pytest.skip("a source package has no workflows", allow_module_level=True)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
FORMS = [
    path
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    if path.name != "config.yml"
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
# What GitHub's machines have before anything is installed.
RUNNER = {"sudo", "pipx", "python", "echo"}
# What may be written: the site, by the one job that publishes it.
WRITES = {("docs.yml", "deploy"): {"pages": "write", "id-token": "write"}}
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")


def load(path):
    """YAML 1.1, which PyYAML reads, takes the key ``on`` for true."""
    document = yaml.safe_load(path.read_text())
    return {("on" if key is True else key): value for key, value in document.items()}


def named(paths):
    return [pytest.param(path, id=str(path.relative_to(ROOT / ".github"))) for path in paths]


def steps(path):
    document = load(path)
    groups = [document["runs"]] if "runs" in document else document["jobs"].values()
    return [step for group in groups for step in group["steps"]]


def missing_from(command):
    """Return the words of a shell command that name nothing that there is."""
    program, *words = shlex.split(command)
    if program == "make":
        return [word for word in words if "=" not in word and word not in TARGETS]
    if program.startswith(".venv/bin/"):
        installed = importlib.metadata.entry_points(group="console_scripts").names
        known = {*installed, "ruff", "python"}  # these two without an entry point
        return [] if program.removeprefix(".venv/bin/") in known else [program]
    if program.startswith("build/tried/bin/"):  # the virtual environment of wheels.yml
        program = "python"
    scripts = [word for word in words if word.endswith(".py")]
    return [name for name in scripts if not (ROOT / name).is_file()] + [
        name for name in [program] if name not in RUNNER
    ]


def test_there_are_workflows():
    assert {path.stem for path in WORKFLOWS} == {"docs", "lint", "tests", "wheels"}
    assert ACTIONS
    assert FORMS


@pytest.mark.parametrize("path", named(WORKFLOWS + ACTIONS))
def test_commands_exist(path):
    scripts = [step["run"] for step in steps(path) if "run" in step]
    lines = [EXPRESSION.sub("", line) for script in scripts for line in script.splitlines()]
    assert lines
    assert [word for line in lines for word in missing_from(line)] == []


def test_a_command_that_does_not_exist_is_found():
    assert missing_from("make tset EXTRAS=dev") == ["tset"]
    assert missing_from(".venv/bin/pre-comit run") == [".venv/bin/pre-comit"]
    assert missing_from("python .ci/try_weel.py") == [".ci/try_weel.py"]
    assert missing_from("mkdocs build") == ["mkdocs"]


@pytest.mark.parametrize("path", named(WORKFLOWS + ACTIONS))
def test_actions_are_pinned(path):
    """By a commit, which a moved tag does not change; the comment says which version it is."""
    used = [step["uses"] for step in steps(path) if "uses" in step]
    remote = [action for action in used if not action.startswith("./")]
    assert [name for name in used if name not in remote and not (ROOT / name).is_dir()] == []
    assert [name for name in remote if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []
    for name in remote:
        assert re.search(rf"{re.escape(name)} # v\d+\.\d+\.\d+$", path.read_text(), re.MULTILINE)


def test_an_action_has_one_version():
    used = {step["uses"] for path in WORKFLOWS + ACTIONS for step in steps(path) if "uses" in step}
    names = [action.partition("@")[0] for action in used]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", named(WORKFLOWS))
def test_permissions_are_least(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job.get("permissions", {}) == WRITES.get((path.name, name), {}), name
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
    # Code of a pull request never runs with the rights of the repository.
    assert "pull_request_target" not in workflow["on"]


@pytest.mark.parametrize("path", named(WORKFLOWS))
def test_jobs_end(path):
    workflow = load(path)
    assert workflow["concurrency"]["group"] == "${{ github.workflow }}-${{ github.ref }}"
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 120, name


def test_all_versions_of_python_are_tested():
    prefix = "Programming Language :: Python :: "
    classifiers = PROJECT["project"]["classifiers"]
    supported = [name.removeprefix(prefix) for name in classifiers if name.startswith(prefix)]
    job = load(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["tests"]
    assert job["strategy"]["matrix"]["python"] == supported
    wheels = PROJECT["tool"]["cibuildwheel"]["build"].split()
    assert [re.sub(r"cp3(\d+)-.*", r"3.\1", wheel) for wheel in wheels] == supported
    assert PROJECT["project"]["requires-python"] == f">={supported[0]}"


@pytest.mark.parametrize("path", named(WORKFLOWS))
def test_make_gets_the_python_that_is_set_up(path):
    """The Makefile would take the oldest that the machine has."""
    for name, job in load(path)["jobs"].items():
        if any(step.get("run", "").startswith("make ") for step in job["steps"]):
            [setup] = [step for step in job["steps"] if "setup" in step.get("uses", "")]
            assert job["env"]["PYTHON"] == f"python{setup['with']['python']}", name


def hooks():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    return config["repos"][0]["hooks"]


@pytest.mark.parametrize("hook", [pytest.param(hook, id=hook["id"]) for hook in hooks()])
def test_hooks_exist_and_fetch_nothing(hook):
    assert hook["language"] == "system"
    assert missing_from(hook["entry"]) == []


def test_hooks_cover_lint():
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    tools = re.findall(r"\$\(BIN\)/(\S+(?: check| format)?)", recipe)
    assert len(tools) >= 3
    entries = [hook["entry"] for hook in hooks()]
    assert [tool for tool in tools if not any(f".venv/bin/{tool}" in e for e in entries)] == []
    assert "$(MAKE) types" in recipe
    assert "make types" in entries


@pytest.mark.parametrize("path", named(FORMS))
def test_forms_are_forms(path):
    """By GitHub's rules: a name, a description, and fields with ids that differ."""
    form = load(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in fields)
