"""Tables made to harm: YAML that stands for gigabytes, tags that name code, depth that would end the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceforall.cost.measured import read_rows
from onceforall.errors import UserError
from onceforall.latency.table import read_table
from onceforall.space import search_space

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 20)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True))
MERGES = "a: &a {k: 1, l: 2}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 20)}]}}\n" for old, new in zip("abcdefg", "bcdefgh", strict=True))


@pytest.mark.parametrize("text", [LAUGHS, MERGES], ids=["lists", "merged keys"])
def test_yaml_that_stands_for_gigabytes(tmp_path: Path, little_memory: None, text: str) -> None:
    path = tmp_path / "160_table.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="an alias, or lists in lists"):
        read_table(path)


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 200_000, "- " * 200_000], ids=["lists", "maps", "items"])
def test_deep_yaml_does_not_end_the_process(tmp_path: Path, text: str) -> None:
    path = tmp_path / "160_table.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"160_table\.yaml"):
        read_table(path)


def test_yaml_does_not_run_code(tmp_path: Path) -> None:
    path, ran = tmp_path / "160_table.yaml", tmp_path / "ran"
    path.write_text(f"!!python/object/apply:os.mkdir ['{ran}']\n", encoding="utf-8")
    with pytest.raises(UserError, match="could not determine a constructor"):
        read_table(path)
    assert not ran.exists()


def test_deep_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match="is no latency table"):
        read_table(tmp_path / "a.json")
    with pytest.raises(UserError, match="is not JSON"):
        read_rows(tmp_path / "a.json", search_space("mobilenet_v3_large"))
