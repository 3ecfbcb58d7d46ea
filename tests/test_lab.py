"""What somebody does in JupyterLab: the start page, the schema of the parameter files, and a change on page 04."""

import json
import re
import shutil

import jsonschema
import papermill
import pytest
import yaml
from smoke_run import smoke_config

from cmat_lib.base.errors import CmatError
from cmat_lib.config import load_config, project_root
from cmat_lib.workflow.pages import open_stage
from cmat_lib.workflow.run import STAGE_NAMES, Run

ROOT = project_root()
YAML_FILES = sorted((ROOT / "params").glob("*.yaml"))


def test_the_start_page_links_every_page_and_nothing_that_is_not_there():
    text = (ROOT / "notebooks/README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if link.endswith(".ipynb")] == [f"{stage}.ipynb" for stage in STAGE_NAMES]
    assert all((ROOT / "notebooks" / link).exists() for link in links)


def test_make_lab_opens_it_and_its_settings_are_json():
    target = re.search(r"^lab:.*\n\t(.*(?:\\\n.*)*)", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1)
    assert "default_url=/lab/tree/notebooks/README.md" in target and "app_settings_dir=" in target
    overrides = json.loads((ROOT / "notebooks/.lab/overrides.json").read_text())
    assert overrides["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]["markdown"] == "Markdown Preview"


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_editors_find_the_schema_and_agree_with_cmat(path):
    first = path.read_text().splitlines()[0]
    schema = json.loads(
        (path.parent / re.fullmatch(r"# yaml-language-server: \$schema=(.+)", first).group(1)).read_text()
    )
    # Editors read dates as text.
    content = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))
    jsonschema.validate(content, schema)
    section = "search" if "search" in content else "training"
    with pytest.raises(jsonschema.ValidationError, match="learning_rat"):
        jsonschema.validate(
            content | {section: {"training.learning_rat" if section == "search" else "learning_rat": [1]}}, schema
        )


def test_two_values_changed_on_page_04_leave_01_to_03_alone(smoke, tmp_path):
    folder, _, _ = smoke
    copy = tmp_path / "run"
    shutil.copytree(folder / "run", copy, ignore=shutil.ignore_patterns("report", "notebooks"))
    kept = {stage: (copy / f"stages/{stage}.json").read_bytes() for stage in STAGE_NAMES[:3]}
    changed = {"run_dir": str(copy), "training": {"epochs": 1, "learning_rate": 0.001}}
    page = ROOT / "notebooks/04_training.ipynb"
    papermill.execute_notebook(page, tmp_path / "04.ipynb", changed, progress_bar=False, kernel_name="python3")
    config = load_config(copy / "params.yaml")
    assert (config.training.epochs, config.training.learning_rate) == (1, 0.001)
    assert config.training.batch_size == smoke_config(folder).training.batch_size, "the other values stay"
    assert {stage: (copy / f"stages/{stage}.json").read_bytes() for stage in STAGE_NAMES[:3]} == kept
    run = Run(config, STAGE_NAMES[4])
    assert (
        run.is_finished(STAGE_NAMES[3])
        and len(run.read_json(f"{config.logging.save_dir}/training_results.json")["history"]) == 1
    )
    untouched = {"run_dir": str(copy)}
    with pytest.raises(CmatError, match=r"05_evaluation has not been run since .* run notebooks/05_evaluation.ipynb"):
        open_stage("06_attention_visualization", untouched)
    opened, _ = open_stage("05_evaluation", untouched)
    assert opened.training.epochs == 1, "page 05 goes on with what page 04 was given"
