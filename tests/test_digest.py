"""What reruns a job: code does, comments and docstrings do not, and only where it is imported."""

import shutil
from pathlib import Path

import pytest

from unmask import digest

PACKAGE = Path(digest.__file__).parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package that a test may edit."""
    copy = tmp_path / "unmask"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "PACKAGE", copy)
    return copy


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_comments_docstrings_and_blank_lines_do_not_count(package):
    before = digest.code("unmask.pretrain")
    path = package / "pretrain.py"
    path.write_text("# a comment\n" + path.read_text().replace('"""Stage 2:', '"""Stage two:', 1) + "\n\n# the end\n")
    assert digest.code("unmask.pretrain") == before


def test_an_edit_counts_where_it_is_imported_at_any_depth(package):
    stages = {name: digest.code(f"unmask.{name}") for name in ("pretrain", "finetune", "data")}
    edit(package / "models" / "vit.py", "return (images - self.mean) / self.std", "return images - self.mean")
    assert digest.code("unmask.pretrain") != stages["pretrain"]
    assert digest.code("unmask.finetune") != stages["finetune"]
    assert digest.code("unmask.data") == stages["data"]


def test_an_edit_of_one_plugin_changes_that_plugin_only(package):
    files = [package / "explainers" / f"{name}.py" for name in ("saliency", "rise")]
    before = [digest.code("unmask.explain", file) for file in files]
    files[0].write_text(files[0].read_text() + "\nEXTRA = 1\n")
    after = [digest.code("unmask.explain", file) for file in files]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_messages_and_the_command_line_do_not_count(package):
    before = digest.code("unmask.finetune")
    edit(package / "cli.py", "prog=", "prog_=")
    assert digest.code("unmask.finetune") == before


def test_an_edit_of_tables_or_figures_reruns_no_earlier_stage(package):
    stages = ("data", "pretrain", "finetune", "explain", "score", "scoring", "inside", "aggregate", "report")
    before = {name: digest.code(f"unmask.{name}") for name in stages}
    edit(package / "statistics" / "boards.py", '"rank": ranks[i]', '"rank": 1 + ranks[i]')
    edit(package / "figures" / "catalogue.py", "jobs: int = 1", "jobs: int = 2")
    changed = {name for name in stages if digest.code(f"unmask.{name}") != before[name]}
    assert changed == {"aggregate", "report"}


def test_of_ignores_key_order():
    assert digest.of({"a": 1, "b": [1, 2]}) == digest.of({"b": [1, 2], "a": 1})
    assert digest.of({"a": 1}) != digest.of({"a": 2})
