"""Other people's files are data: none can run code, and none can make anything be written elsewhere."""

import ast
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import papermill.translators as translators
import pytest
import torch

import cmat_lib
from cmat_lib.base.errors import CmatError
from cmat_lib.commands.run import grid_members
from cmat_lib.commands.sweep.file import read_sweep
from cmat_lib.config import load_config, project_root
from cmat_lib.config.schema import DataConfig
from cmat_lib.data.cache import clean, verify
from cmat_lib.data.sources.exchange import file_name
from cmat_lib.data.sources.files import read_market
from cmat_lib.training.resume import SavePoint
from cmat_lib.workflow.pages import open_stage
from cmat_lib.workflow.run import Run
from cmat_lib.workflow.tracking import without_secrets

# Calls that run what they read; `name: keyword` are allowed only with that keyword and value.
FORBIDDEN = {"eval", "exec", "compile", "__import__", "system", "popen", "read_pickle", "unsafe_load", "full_load"}
FORBIDDEN |= {
    "load_pickle",
    "Unpickler",
    "import_module",
    "exec_module",
    "joblib.load",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
}
GUARDED = {"np.load": ("allow_pickle", False), "torch.load": ("weights_only", True), "export.load": ("-", None)}
GUARDED |= {"yaml.load": ("-", None), "numpy.load": ("-", None)}


def calls(source: str):
    """Line, dotted name (its last two parts) and constant keywords of every call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ".".join(ast.unparse(node.func).split(".")[-2:])
            yield node.lineno, name, {k.arg: getattr(k.value, "value", ...) for k in node.keywords}


def forbidden(source: str) -> list[str]:
    found = []
    for line, name, keywords in calls(source):
        keyword, value = GUARDED.get(name, (None, None))
        careless = keyword is not None and keywords.get(keyword, ...) is not value
        if (
            careless
            or name in FORBIDDEN
            or name.split(".")[-1] in FORBIDDEN - {"compile", "eval"}
            or keywords.get("shell")
        ):
            found.append(f"{line}: {name}")
    return found


def sources():
    library = sorted(Path(cmat_lib.__file__).parent.rglob("*.py"))
    pages = sorted((project_root() / "notebooks").glob("*.ipynb"))
    yield from ((path.name, path.read_text(encoding="utf-8")) for path in library)
    for path in pages:
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        yield path.name, "\n".join("".join(cell["source"]) for cell in cells)


def test_the_library_and_the_pages_run_nothing_that_they_read():
    found = [(name, line.partition(": ")[2]) for name, source in sources() for line in forbidden(source)]
    # Modules of a fixed table, by their names; and files of parts that a command line or a program names.
    assert sorted(found) == [("__init__.py", "import_module"), ("parts.py", "loader.exec_module")]


@pytest.mark.parametrize(
    "source",
    [
        *("eval(x)", "np.load(p)", "np.load(p, allow_pickle=True)", "torch.load(p)", "torch.load(p, weights_only=no)"),
        *("yaml.load(f)", "joblib.load(p)", "pd.read_pickle(p)", "subprocess.run(c, shell=True)", "os.system(c)"),
        *("pickle.loads(b)", "torch.export.load(p)", "__import__(n)", "yaml.unsafe_load(f)"),
    ],
)
def test_the_search_for_them_finds(source):
    assert len(forbidden(source)) == 1


class Malicious:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path):
    """A folder that must not come into being."""
    yield tmp_path / "trap"
    assert not (tmp_path / "trap").exists()


def test_the_trap_snaps(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "trap")))
    assert (tmp_path / "trap").is_dir()


def test_an_array_of_objects(tmp_path, trap):
    """In a run folder and in a cache folder (checkpoints: tests/test_checkpoint.py)."""
    run = Run(load_config(changes={"run_dir": str(tmp_path / "run")}), "03_model_build")
    for path in (run.path("data/tda.npy"), tmp_path / "cache/tda_features_AAA_0.npy"):
        path.parent.mkdir(parents=True)
        np.save(path, np.array([Malicious(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(CmatError, match=r"tda\.npy cannot be read .*Python objects in dtype"):
        run.read_array("data/tda.npy")
    assert verify(tmp_path / "cache") == ["tda_features_AAA_0.npy: no record beside it"]


def test_the_state_of_a_training(tmp_path, trap):
    torch.save({"fingerprint": "print", "x": Malicious(trap)}, tmp_path / "last.pt")
    with pytest.warns(UserWarning, match="training starts anew: .*damaged or not a model"):
        SavePoint(tmp_path / "last.pt", "print", resume=True).load(torch.device("cpu"))


@pytest.mark.parametrize("read", [load_config, read_sweep], ids=["parameters", "sweep"])
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_yaml_with_objects(tmp_path, trap, read, tag):
    (tmp_path / "p.yaml").write_text(f'search: 1\nrun_dir: {tag} ["{trap}"]\n')
    with pytest.raises(CmatError, match="cannot be read as YAML"):
        read(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    "value", ["'''; import os #", '"); os.mkdir("trap") #', "\\'\n\nimport os", "{x}", "\u2028import os"]
)
def test_a_notebook_parameter_stays_a_text(value):
    """papermill writes parameters as Python code: it must be an assignment of that very text."""
    code = translators.PythonTranslator.codify({"run_dir": value, "data": {"symbols": [value], value: 1}})
    nodes = ast.parse(code).body
    assert [type(node) for node in nodes] == [ast.Assign, ast.Assign]
    assert [ast.literal_eval(node.value) for node in nodes] == [value, {"symbols": [value], value: 1}]


@pytest.mark.parametrize("save_dir", ["../x", "/tmp/x", "a/../../x", "..", "", ".", "a\0b"])
def test_models_stay_inside_the_run_folder(tmp_path, save_dir):
    with pytest.raises(CmatError, match=r"save_dir must be a relative path inside the run folder"):
        load_config(changes={"logging": {"save_dir": save_dir}})
    with pytest.raises(CmatError, match="save_dir"):
        open_stage("01_data_prep", {"run_dir": str(tmp_path), "logging": {"save_dir": save_dir}})


@pytest.mark.parametrize("name", ["a b", "a;b", "$(x)", "ä", "x..y", "-", "a\nb"])
def test_a_symbol_from_a_file_name(tmp_path, name):
    """It becomes part of file names: no folder, no hidden file, nothing that a shell reads."""
    rows = "".join(f"2024-01-01 00:{minute},1,1,1,1,1\n" for minute in ("00", "15"))
    (tmp_path / f"{name}.csv").write_text("timestamp,open,high,low,close,volume\n" + rows)
    (symbol,) = read_market(DataConfig(data_dir=str(tmp_path)))
    assert re.fullmatch(r"[\w-][\w.-]*", symbol)


def test_a_symbol_from_a_column(tmp_path):
    rows = "".join(f"2024-01-01,{name},1,1,1,1,1\n" for name in ("../../x", ".hidden", "/etc/passwd"))
    (tmp_path / "A.csv").write_text("timestamp,symbol,open,high,low,close,volume\n" + rows)
    assert list(read_market(DataConfig(data_dir=str(tmp_path)))) == ["_._.._x", "_etc_passwd", "_hidden"]


def test_names_that_become_files():
    assert "/" not in file_name("../../x", "1d") and ".." not in file_name("..\\..\\x", "1d")
    for name in grid_members(["data.data_dir=../../x,/etc,'a\\..\\b'"]):
        assert "/" not in name and "\\" not in name


def test_cleaning_a_cache_stays_in_it(tmp_path):
    """A link to another folder is not followed, and nothing but cached features goes."""
    for name in ("other/keep", "other/about.json", "cache/mine.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    for name in ("tda_features_AAA_0", "tda_features_AAA_1.parts"):
        (tmp_path / "cache" / name).symlink_to(tmp_path / "other")
    clean(tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == ["mine.txt"]
    assert sorted(os.listdir(tmp_path / "other")) == ["about.json", "keep"]


def test_passwords_are_not_kept():
    with pytest.raises(CmatError, match="leave name and password out of this file"):
        load_config(changes={"logging": {"mlflow": "https://me:secret@host/mlflow"}})
    assert without_secrets("at https://me:secret@host/a?b") == "at https://***@host/a?b"
