"""Page 06 with every fusion: it runs to its end, draws everywhere, and speaks of attention only where there is some."""

import base64
import io
import shutil

import nbformat
import numpy as np
import pytest
from PIL import Image
from smoke_run import smoke_config

from cmat_lib.models import build_model
from cmat_lib.workflow.notebooks import run_notebooks
from cmat_lib.workflow.run import Run, select_stages
from cmat_lib.workflow.stages.architecture import describe_model
from cmat_lib.workflow.stages.evaluation import evaluate_model
from cmat_lib.workflow.stages.training import train_model

pytestmark = pytest.mark.long
WORK = {
    "03_model_build": lambda config, run: describe_model(build_model(config), run),
    "04_training": train_model,
    "05_evaluation": evaluate_model,
}
NAMES = ("nbeats", "tda", "complexity", "clock")
FINE = (
    "trend",
    "seasonality",
    "generic 1",
    "generic 2",
    "H0 curve",
    "H1 curve",
    "H0 summary",
    "H1 summary",
    *NAMES[2:],
)
# parameters of the fusion, whether stacks attend -> names at the two places of attention
FUSIONS = {
    "concat": ({"fusion_type": "concat"}, True, None),
    "concat, nothing attends": ({"fusion_type": "concat"}, False, None),
    "gated": ({"fusion_type": "gated", "tokens": "fine"}, True, None),
    "bottleneck": ({"fusion_type": "bottleneck"}, True, (*NAMES, *(f"bottleneck {n}" for n in range(1, 5)))),
    "attention, CLS": ({"use_cls_token": True}, True, ("cls", *NAMES)),
    "attention, fine": ({"tokens": "fine"}, True, FINE),
}


@pytest.fixture(params=FUSIONS, scope="module")
def page(request, smoke, tmp_path_factory):
    """Name of a fusion, and the outputs of the code cells of its executed page by id."""
    folder, _, _ = smoke
    own = tmp_path_factory.mktemp("fusion")
    shutil.copytree(folder / "run", own / "run")
    fusion, stacks_attend, _ = FUSIONS[request.param]
    model = {"use_attention": stacks_attend}
    config = smoke_config(folder, run_dir=str(own / "run"), fusion=fusion, model=model, explain={"permutations": 2})
    for stage, work in WORK.items():
        run = Run(config, stage).begin()
        work(config, run)
        run.finish()
    run_notebooks(config, select_stages("06", "06"), lambda line: None)
    cells = nbformat.read(own / "run/notebooks/06_attention_visualization.ipynb", as_version=4).cells
    return request.param, {cell.id: cell.outputs for cell in cells if cell.cell_type == "code"}


def text_of(outputs):
    return "".join(o.get("text", "") + o.get("data", {}).get("text/markdown", "") for o in outputs)


def pictures(outputs):
    found = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L")) for png in found]


def test_page_is_right_for_its_fusion(page):
    name, cells = page
    _, stacks_attend, tokens = FUSIONS[name]
    said = text_of(cells["maps"])
    assert (f"names: {', '.join(tokens)}\n" if tokens else "tokens  no attention in this model\n") in said
    assert ("names: trend, seasonality, generic 1, generic 2\n" in said) == (stacks_attend or name == "attention, fine")
    attends = bool(tokens) or stacks_attend
    assert bool(pictures(cells["average"])) == attends and bool(cells["explorer"]) == attends
    assert len(pictures(cells["signed"])) == (bool(tokens) or name == "gated")
    for cell in ("beside", "agreement"):
        assert len(pictures(cells[cell])) == bool(tokens)
    verdict = text_of(cells["verdict"])
    for phrase in ("looked at", "where it looks", "heads", "average map", "looks elsewhere"):
        assert phrase not in verdict or tokens, f"{phrase}: {verdict}"
    assert "lowers the loss" in verdict or "helps at all" in verdict
    for outputs in cells.values():
        for picture in pictures(outputs):
            assert (picture < 200).mean() > 0.002 and picture.std() > 5, "a blank figure"
