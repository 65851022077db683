"""Of a settings file one value is changed, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dicomnode.errors import Misconfigured
from dicomnode.settings import load
from dicomnode.settings_file import set_model

WRITTEN = """\
# our node
[archive]
path = "data"   # on the big disk

[worker]
# tried in spring
model = ["a", "b"]  # both
device = "cpu"

[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "10.0.0.1"
port = 104
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "node.toml"


def test_comments_and_order_stay(config: Path, tmp_path: Path) -> None:
    config.write_text(WRITTEN)
    set_model(config, tmp_path / "bundle")
    assert config.read_text() == WRITTEN.replace('["a", "b"]', f'"{tmp_path}/bundle"')
    assert [path.name for path in tmp_path.iterdir()] == ["node.toml"]


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", '[web]\nport = 81\n\n[[rules]]\nname = "a"\naction = "skip"\n', 'worker.device = "cpu"\n',
     'worker = { device = "cpu" }\n', '[worker]\r\n# why\r\nmodel = "x"\r\n'],
)  # fmt: skip
def test_wherever_the_value_belongs(config: Path, tmp_path: Path, text: str) -> None:
    config.write_bytes(text.encode())
    before = tomllib.loads(text)
    set_model(config, tmp_path / 'a "b\\c')
    assert load(config, {})[0].worker.bundles == (tmp_path / 'a "b\\c',)
    after = tomllib.loads(config.read_text())
    assert after.pop("worker") == before.pop("worker", {}) | {"model": str(tmp_path / 'a "b\\c')}
    assert after == before
    assert config.read_bytes().count(b"\r\n") >= text.count("\r\n")


def test_a_relative_bundle_is_written_in_full(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.touch()
    monkeypatch.chdir(tmp_path)
    set_model(config, Path("bundle"))
    assert load(config, {})[0].worker.model == tmp_path / "bundle"


def test_who_may_read_the_file_stays(config: Path, tmp_path: Path) -> None:
    config.touch(mode=0o640)
    config.chmod(0o640)
    set_model(config, tmp_path / "bundle")
    assert config.stat().st_mode & 0o777 == 0o640


def test_a_link_to_the_file_stays_one(config: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "real.toml").write_text(WRITTEN)
    config.symlink_to("etc/real.toml")
    set_model(config, tmp_path / "bundle")
    assert config.is_symlink()
    assert str(tmp_path / "bundle") in (tmp_path / "etc" / "real.toml").read_text()


@pytest.mark.parametrize("content", [b"[worker\n", b"\xff", b"worker = 3\n"])
def test_a_file_that_cannot_be_changed_is_left_as_it_is(config: Path, tmp_path: Path, content: bytes) -> None:
    config.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"node\.toml: "):
        set_model(config, tmp_path)
    assert config.read_bytes() == content


def test_a_crash_leaves_the_old_file(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    config.write_text(WRITTEN)
    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(Misconfigured, match="No space left"):
        set_model(config, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("node.toml", WRITTEN)]
