"""What the documents say is run: code blocks, the table of methods, public names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import askwhy as aw

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert aw.Explanation.load("lime.npz") == names["why"]
    assert (tmp_path / "lime.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", ["dreams", "effects", "inside", "probing"])
def test_the_python_of_the_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_the_pages_pictures_and_links_are_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?://)([\w./-]+\.(?:md|jpg|png|py))\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} points to {link}"


def test_the_readmes_table_names_every_method_and_what_it_needs():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\w+) \| [\w, ]+ \|$", README, re.MULTILINE))
    assert rows == {m.name: m.needs for m in aw.methods()}


def test_the_readmes_commands_exist():
    from typer.testing import CliRunner

    from askwhy.cli import app

    for words in re.findall(r"^askwhy (\w+)(.*)$", README, re.MULTILINE):
        said = CliRunner().invoke(app, [words[0], "--help"]).stdout
        for option in re.findall(r"--\w+", words[1]):
            assert option in said, (words, option)


def test_the_makefile_has_the_readmes_targets():
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("name", aw.__all__)
def test_every_public_name_is_there_and_documented(name):
    found = getattr(aw, name)
    assert found.__doc__
    assert name in dir(aw)
    init = (ROOT / "src/askwhy/__init__.py").read_text()
    assert re.search(rf"^    from askwhy\S* import .*\b{name}\b", init, re.MULTILINE), "type checkers see it only under TYPE_CHECKING"


def test_docstrings_of_public_functions_are_short():
    for name in aw.__all__:
        doc = getattr(aw, name).__doc__
        assert len(doc.strip().splitlines()) <= 15, name


def test_files_are_small_enough_to_read_in_one_sitting():
    for file in (ROOT / "src").rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 330, file


def test_arrows_point_down_only():
    """No noun knows a method, and show knows nothing above it."""
    levels = {
        "show": 0,
        "errors": 0,
        "_lazy": 0,
        "_version": 0,
        "_memory": 0,
        "files": 0,
        "checks": 0,
        "absence": 1,
        "models": 1,
        "score": 1,
        "components": 1,
        "wording": 1,
        "tables": 1,
        "conditional": 1,
        "plots": 1,
        "recipes": 1,
        "game": 1,
        "tap": 1,
        "targets": 1,
        "rules": 1,
        "operations": 1,
        "written": 1,
        "reading": 1,
        "saved": 1,
        "explanation": 1,
        "answer": 1,
        "registry": 2,
        "layers": 2,
        "pieces": 2,
        "compiled": 2,
        "local": 3,
        "overall": 3,
        "inside": 3,
        "ask": 3,
        "fetch": 1,
        "zoo_text": 2,
        "zoo_tables": 2,
        "zoo_digits": 2,
        "zoo_tags": 2,
        "places": 1,
        "kept": 1,
        "zoo": 2,
        "report": 4,
        "cli": 5,
    }
    for file in (ROOT / "src/askwhy").rglob("*.py"):
        own = file.relative_to(ROOT / "src/askwhy").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for other in re.findall(r"^(?:from|import) askwhy\.(\w+)", file.read_text(), re.MULTILINE):
            assert levels[other] <= levels[own], f"{file.name} imports {other}"
