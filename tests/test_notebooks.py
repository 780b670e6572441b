"""The notebooks: stripped as they are kept, and what they find out when they are run."""

import json
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def jupyter(monkeypatch):
    """Sockets in the file system instead of ports; their paths must be short."""
    folder = tempfile.mkdtemp(prefix="vpxrc-")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
    yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
    shutil.rmtree(folder)


@pytest.fixture
def run(jupyter, tmp_path, monkeypatch):
    """A function that runs a notebook and returns the values of expressions at its end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebooks leave what they write

    def execute(number: int, **expressions: str):
        (path,) = [path for path in NOTEBOOKS if path.name.startswith(f"{number}-")]
        notebook = nbformat.read(path, as_version=4)
        pairs = ", ".join(f"{name!r}: {code}" for name, code in expressions.items())
        notebook.cells.append(
            nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{pairs}}}))")
        )
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=600,
            startup_timeout=300,
            config=jupyter,
            resources={"metadata": {"path": str(tmp_path)}},
        )
        client.execute()
        (output,) = notebook.cells[-1].outputs
        return json.loads(output.text)

    return execute


def test_there_are_four():
    assert [path.name[:2] for path in NOTEBOOKS] == ["1-", "2-", "3-", "4-"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"


def test_compare_bitrate_savings(run):
    found = run(
        1,
        saved="evaluation.summary['baselines']['libvpx-vbr']['bd_rate']['psnr']",
        status="sorted(set(evaluation.comparisons['status']))",
        percent="percent.tolist()",
        interval="interval.ci95",
        by_hand="by_hand",
        of_clip="evaluation.summary['clips'][1]['bd_rate']['libvpx-vbr']['psnr']['percent']",
        encodes="len(evaluation.encodes)",
    )
    assert found["encodes"] == 3 * 3 * 4
    assert found["status"] == ["ok"]
    assert found["saved"]["n"] == 3
    assert found["saved"]["mean"] < -2  # -14 where it was written
    # What the notebook says of three clips, and of the integral.
    assert found["interval"] == pytest.approx([min(found["percent"]), max(found["percent"])])
    assert found["by_hand"] == pytest.approx(found["of_clip"], abs=0.05)


def test_an_episode_under_the_microscope(run):
    found = run(
        2,
        spearman="float(spearman)",
        bits="[int(part['bits'].sum()) for part in coded.values()]",
        stream="[by_libvpx.bits, log.bits]",
        again="[8 * int(one.records['is_shown_again'].sum()) for one in (by_libvpx, log)]",
        importance="model.groupby('update_type')['importance'].mean().to_dict()",
        psnr="[by_libvpx.psnr, log.psnr]",
        overshoot="overshoot.tolist()",
        pictures="[importance.is_file(), propagation.is_file()]",
        first="[decisions['type'][0], int(decisions['libvpx\\'s q'][0])]",
        coded_q="int(coded['libvpx']['q_index'].iloc[0])",
        inter="first_pass['pcnt_inter'].tolist()[:2]",
    )
    assert found["spearman"] < -0.5  # what others depend on is coded finer
    assert found["importance"]["arf"] > 1.5 > found["importance"]["leaf"] >= 1
    for bits, again, stream in zip(found["bits"], found["again"], found["stream"], strict=True):
        # The rest are the indices of packets that carry an ARF besides the frame that is shown.
        assert 0 <= stream - bits - again < 0.02 * stream
    assert found["psnr"][0] == pytest.approx(35.9, abs=0.5)
    assert all(-0.2 < value < 0.1 for value in found["overshoot"])
    assert found["pictures"] == [True, True]
    assert found["first"] == ["key", found["coded_q"]]
    assert found["inter"][0] == 0 < 0.9 < found["inter"][1]


def test_your_own_policy(run):
    found = run(
        3,
        savings="savings.to_dict('records')",
        encodes="encodes.to_dict()",
        overshoot="(results['bitrate'] / results['target'] - 1)"
        "[results['policy'] == 'pyramid'].tolist()",
    )
    assert {row["status"] for row in found["savings"]} == {"ok"}
    against = {
        name: [row["percent"] for row in found["savings"] if row["against"] == name]
        for name in ("libvpx-vbr", "libvpx-q-mlarf")
    }
    assert max(against["libvpx-vbr"]) < 0
    assert max(map(abs, against["libvpx-q-mlarf"])) < 8  # neither much better nor much worse
    assert found["encodes"]["libvpx-vbr"] == 1 < found["encodes"]["pyramid"] <= 8
    assert all(-0.1 < value <= 0 for value in found["overshoot"])


def test_train_a_small_agent(run):
    found = run(
        4,
        rounds="returns.mean(axis=1).tolist()",
        before="before",
        after="after",
        bitrate="last['bitrate']",
        percent="percent",
    )
    assert len(found["rounds"]) == 15
    first, late = sum(found["rounds"][:3]) / 3, sum(found["rounds"][-3:]) / 3
    assert late > first + 3  # dB; 6.4 where it was written
    assert found["after"] > found["before"] + 5
    assert found["bitrate"] < 44
    assert found["percent"]["trained"] < found["percent"]["untrained"] - 5
