"""Every command shows examples, every example is understood, and the exit codes are those that the help names."""

import shlex
import subprocess
import sys

import pytest
from typer.main import get_command

from cmat_lib.commands.cli import app


def commands(group=None, before=()):
    """Name -> command, with those of sub-commands as ``cache build``."""
    found = {}
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*before, name))
        else:
            found[" ".join((*before, name))] = command
    return found


EXAMPLES = {name: command.epilog.removeprefix("Examples:\n\n").split("\n\n") for name, command in commands().items()}


def test_every_command_has_examples():
    for name, lines in EXAMPLES.items():
        assert all(line.startswith("cmat ") for line in lines), f"{name}: add them with the decorator `examples`"
        assert any(line.startswith(f"cmat {name}") for line in lines), name


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_are_understood(example):
    words = shlex.split(example)
    assert words[0] == "cmat"
    name = " ".join(words[1:3]) if words[1] == "cache" else words[1]
    arguments = words[3:] if words[1] == "cache" else words[2:]
    commands()[name].make_context(name, arguments)  # raises for what it does not know


def test_help_shows_them_one_per_line(cmat, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for name, lines in EXAMPLES.items():
        code, out, _ = cmat(*name.split(), "--help")
        shown = [line.strip() for line in out.splitlines()]
        assert code == 0 and all(line in shown for line in lines), name
    assert "Exit codes: 0 all went well" in cmat("--help")[1]


def test_exit_codes(cmat, tmp_path, monkeypatch):
    assert cmat("runs", tmp_path)[0] == 0
    assert cmat("runs", tmp_path / "nowhere")[0] == 1
    assert cmat("runs", "--unknown")[0] == 2

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cmat_lib.commands.runs.list_runs", interrupt)
    assert cmat("runs", tmp_path)[0] == 130


def test_shells_get_a_completion_script_and_its_answers():
    script = "import sys; sys.argv[0] = 'cmat'; from cmat_lib.commands.cli import main; main()"
    command = [sys.executable, "-c", script]
    environment = {
        "PATH": "/usr/bin:/bin",
        "_CMAT_COMPLETE": "complete_bash",
        "COMP_WORDS": "cmat s",
        "COMP_CWORD": "1",
    }
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert set(found.stdout.split()) == {"sweep", "schema"}, found.stderr


def test_no_help_text_loses_words():
    """The help is read as Markdown, where <name> would be a tag and vanish."""
    for name, command in commands().items():
        texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        assert not [text for text in texts if text and "<" in text], name
