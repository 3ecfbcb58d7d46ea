"""The form of the pages, held by reading them; what they do is tested by running them (test_notebooks_run.py)."""

import ast
import re

import nbformat
import pytest

from cmat_lib.config import project_root
from cmat_lib.config.schema import SECTIONS
from cmat_lib.workflow.run import STAGE_NAMES

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
pages = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tree(path):
    return ast.parse("\n\n".join(cell.source for cell in code_cells(path)))


def test_there_is_one_page_per_stage():
    assert [path.stem for path in NOTEBOOKS] == list(STAGE_NAMES)


@pages
def test_no_outputs_are_stored(path):
    for cell in code_cells(path):
        assert not cell.outputs and cell.execution_count is None, cell.source.splitlines()[0]


@pages
def test_notebook_is_valid_and_small(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < 60_000
    assert read(path).metadata.kernelspec.name == "python3"


def test_parameters_are_the_same_on_all_pages():
    tagged = [[c.source for c in code_cells(p) if "parameters" in c.metadata.get("tags", [])] for p in NOTEBOOKS]
    assert all(len(sources) == 1 for sources in tagged)
    assert len({sources[0] for sources in tagged}) == 1
    assigned = [node.targets[0].id for node in ast.parse(tagged[0][0]).body]
    assert assigned == ["run_dir", "seed", *SECTIONS]
    assert all(" # " in line for line in tagged[0][0].splitlines()), "a comment for each"


@pages
def test_page_has_its_form(path):
    cells = read(path).cells
    number = path.stem.split("_")[0]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith(f"# {number} · ")
    for word in ("**Reads**", "**Writes**", "**Time**"):
        assert word in cells[0].source
    assert cells[1].metadata.get("tags") == ["parameters"]
    assert f'open_stage("{path.stem}", globals())' in cells[2].source
    assert "run.finish()" in code_cells(path)[-1].source
    assert cells[-1].cell_type == "markdown"
    sections = re.findall(r"^## (\d+) ", "\n".join(c.source for c in cells if c.cell_type == "markdown"), re.MULTILINE)
    assert [int(n) for n in sections] == list(range(1, len(sections) + 1)) and len(sections) >= 3


@pages
def test_text_comes_before_code(path):
    kinds = [cell.cell_type for cell in read(path).cells]
    run_of_code = max(len(run) for run in "".join("c" if k == "code" else "m" for k in kinds[3:]).split("m"))
    assert run_of_code <= 2
    ratio = kinds.count("markdown") / kinds.count("code")
    assert 0.8 <= ratio <= 1.5, f"{ratio:.2f} text cells per code cell"


@pages
def test_cells_are_short(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lengths) <= 25 and sum(lengths) <= 170


@pages
def test_pages_tell_and_the_library_does(path):
    nodes = list(ast.walk(tree(path)))
    assert not any(isinstance(node, ast.ClassDef) for node in nodes)
    assert sum(isinstance(node, ast.FunctionDef) for node in nodes) <= 1


@pages
def test_sections_keep_their_names(path):
    """A page variable named like a section would be taken for parameters when the setup cell runs again."""
    later = [c.source for c in code_cells(path) if "parameters" not in c.metadata.get("tags", [])]
    names = {node.id for source in later for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    stored = {
        node.id
        for source in later
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert names and not stored & {"run_dir", "seed", *SECTIONS}


@pages
def test_nothing_that_spoils_a_page(path):
    text = "\n".join(cell.source for cell in read(path).cells)
    for banned in ("filterwarnings", "plt.show", "%autoreload", "!pip", "/home/", "/Users/", "C:\\", "$$", "TODO"):
        assert banned not in text, banned
