"""The documentation: every command in it is executed, every page is reachable, every link leads somewhere."""

import re
import shutil

import pandas as pd
import pytest
import yaml
from doc_sandbox import Sandbox, blocks
from exchange_server import Binance, serving

from cmat_lib.config import load_config, project_root
from cmat_lib.config.inputs import TableConfig
from cmat_lib.views import VIEWS

PAGES = sorted([project_root() / "README.md", *(project_root() / "docs").rglob("*.md")])
WITH_COMMANDS = [page for page in PAGES if any(language == "sh" for language, _, _ in blocks(page))]


def name_of(page):
    return str(page.relative_to(project_root()))


@pytest.fixture
def exchange():
    """Address of a local Binance with two months of candles."""
    start, end = (int(pd.Timestamp(day, tz="UTC").timestamp() * 1000) for day in ("2024-01-01", "2024-03-01"))
    with serving(Binance(now=end, listed=start)) as state:
        yield state.url


@pytest.mark.long
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_every_command_works(page, tmp_path, exchange):
    sandbox = Sandbox(tmp_path, exchange)
    for language, title, text in blocks(page):
        if language == "python" and title:
            sandbox.append(title, text)
        elif language == "yaml" and title:
            sandbox.parameters(title, text)
        elif language == "sh":
            result = sandbox.run(text)
            assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
    for script in (path for path in tmp_path.glob("*.py")):
        result = sandbox.run(f"python {script.name}")
        assert result.returncode == 0, f"{script.name}\n{result.stderr}"


def blocks_of(language):
    found = [(page, title, text) for page in PAGES for own, title, text in blocks(page) if own == language]
    assert found, f"the documentation has blocks of {language}"
    return found


def test_python_blocks_are_python():
    for page, _, text in blocks_of("python"):
        compile(text, name_of(page), "exec")


def test_files_of_the_library_that_are_named_exist():
    library = project_root() / "cmat_lib"
    rooms = "|".join(sorted(path.name for path in library.iterdir() if (path / "__init__.py").is_file()))
    named = re.compile(rf"`(?:cmat_lib/)?((?:{rooms})/[\w/]*(?:\.py)?)`")
    found = {(name_of(page), name) for page in PAGES for name in named.findall(page.read_text())}
    assert len(found) > 20 and not [(page, name) for page, name in found if not (library / name).exists()]


def test_yaml_blocks_are_yaml():
    for _, title, text in blocks_of("yaml"):
        content = yaml.safe_load(text)
        assert isinstance(content, dict)
        if title:
            load_config(changes=content)


def test_the_page_of_the_library_runs(tmp_path, monkeypatch, capsys):
    page = project_root() / "docs/howto/library.md"
    shutil.copytree(project_root() / "params", tmp_path / "params")
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    program = "\n".join(text for language, _, text in blocks(page) if language == "python")
    exec(compile(program, name_of(page), "exec"), {})
    assert "roc_auc" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["model.pt"]  # nothing else is written


def test_the_page_of_views_lists_every_key():
    page = (project_root() / "docs/howto/views.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(TableConfig.model_fields) | set(VIEWS.views) <= set(rows)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_every_page_stands_in_the_contents():
    listed = re.findall(r"[\w/-]+\.md", (project_root() / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(page.relative_to(project_root() / "docs")) for page in PAGES[1:])


def test_the_site_builds_without_a_warning(tmp_path, monkeypatch):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = load_config(str(project_root() / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    build(config)
    page = (tmp_path / "howto/predict/index.html").read_text()
    assert "cmat predict --run outputs/demo" in re.sub(r"<[^>]+>", "", page)
