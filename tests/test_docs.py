"""What the pages say of files holds."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def test_links_of_the_docs_lead_to_files():
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target, _ in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index] == ["README.md"]


def test_from_the_command_to_the_loss_are_eight_files_that_hold_what_the_page_names():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`[\w/.]+`\]\(\.\./([\w/.]+\.py)\) \| ([^|]+) \|", page, re.M)
    assert 0 < len(rows) <= 8
    for path, names in rows:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, path


def test_tests_that_the_docs_name_are_there():
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    names = {
        (page, name)
        for page in pages
        for name in re.findall(r"(?<!\[)`([\w/]*test_[a-z\d_]+\.py)", page.read_text("utf-8"))
    }
    assert len(names) > 20
    assert [f"{page.name}: {name}" for page, name in sorted(names) if not (ROOT / name).is_file()] == []


def test_every_fault_and_status_names_what_shows_it():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    heads = [row for row in rows if row.endswith("| shown by |")]
    assert len(heads) == 2 and len(rows) > 25
    assert [row for row in rows if row not in heads and not re.search(r"\| [^|]*`tests/\S+`[^|]* \|$", row)] == []
