"""Files come whole or not at all, whatever network and server do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle import BadBundle
from models.download import NotFetched, bytes_here, fetch
from tests.mirror import Mirror, served

CONTENT, CHANGED = random.Random(1).randbytes(600_000), random.Random(2).randbytes(600_000)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with served(Mirror(CONTENT)) as mirror:
        yield mirror


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.zip"


def get(mirror: Mirror, file: Path) -> bytes:
    fetch(mirror.url, file, len(CONTENT), lambda done, total: None)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    return file.read_bytes()


def break_off(mirror: Mirror, file: Path, at: int = 400_000) -> None:
    """Fetch in vain: after `at` bytes nothing more comes."""
    mirror.breaks = [at, 0]
    with pytest.raises(NotFetched, match=f"{at:,} bytes are kept"):
        get(mirror, file)
    assert not file.exists()
    assert bytes_here(file) == at
    mirror.asked.clear()


def test_progress_is_told_up_to_the_end(mirror: Mirror, file: Path) -> None:
    told: list[tuple[int, int]] = []
    fetch(mirror.url, file, None, lambda done, total: told.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert (told[0], told[-1]) == ((0, 600_000), (600_000, 600_000))
    assert told == sorted(told)


def test_a_broken_connection_is_taken_up_at_once_while_that_helps(mirror: Mirror, file: Path) -> None:
    mirror.breaks = [100_000, 200_000]
    assert get(mirror, file) == CONTENT
    assert [asked.get("range") for asked in mirror.asked] == [None, "bytes=100000-", "bytes=300000-"]


def test_another_call_goes_on_where_one_ended(mirror: Mirror, file: Path) -> None:
    break_off(mirror, file)
    assert get(mirror, file) == CONTENT
    assert [(asked["range"], asked["if-range"]) for asked in mirror.asked] == [("bytes=400000-", '"one"')]


def test_what_was_whole_but_not_yet_named_is_not_fetched_again(mirror: Mirror, file: Path) -> None:
    break_off(mirror, file)
    with file.with_name("model.zip.part").open("ab") as part:
        part.write(CONTENT[400_000:])
    assert get(mirror, file) == CONTENT
    assert mirror.asked == []


@pytest.mark.parametrize("minds_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(mirror: Mirror, file: Path, minds_if_range: bool) -> None:
    break_off(mirror, file)
    mirror.content, mirror.etag, mirror.minds_if_range = CHANGED, '"two"', minds_if_range
    if not minds_if_range:  # it is found out by the answer's tag
        with pytest.raises(NotFetched, match="another part than was asked for"):
            get(mirror, file)
    assert get(mirror, file) == CHANGED


def test_a_file_that_shrank_meanwhile_is_fetched_anew(mirror: Mirror, file: Path) -> None:
    break_off(mirror, file)
    mirror.content, mirror.etag, mirror.minds_if_range = CHANGED[:300_000], '"two"', False
    with pytest.raises(NotFetched, match="416"):
        get(mirror, file)
    fetch(mirror.url, file, None, lambda done, total: None)
    assert file.read_bytes() == CHANGED[:300_000]


def test_a_server_without_ranges_sends_all_again_and_that_is_said(
    mirror: Mirror, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_off(mirror, file)
    mirror.ranges = False
    assert get(mirror, file) == CONTENT
    assert "sent only as a whole: starting again" in caplog.text


def test_without_anything_to_tell_versions_apart_nothing_is_gone_on_with(mirror: Mirror, file: Path) -> None:
    mirror.etag, mirror.breaks = 'W/"weak"', [400_000, 100_000]
    with pytest.raises(NotFetched, match=r"600,000 bytes$"):
        get(mirror, file)
    assert get(mirror, file) == CONTENT
    assert all("range" not in asked for asked in mirror.asked)


def test_a_part_from_another_address_is_not_gone_on_with(mirror: Mirror, file: Path) -> None:
    break_off(mirror, file)
    with served(Mirror(CHANGED)) as other:
        assert get(other, file) == CHANGED
        assert "range" not in other.asked[0]


def test_a_server_that_always_breaks_off_is_given_up(mirror: Mirror, file: Path) -> None:
    mirror.ranges, mirror.breaks = False, [300_000] * 10
    with pytest.raises(NotFetched, match="after 300,000 of 600,000 bytes"):
        get(mirror, file)
    assert len(mirror.asked) == 2


def test_a_wrong_size_is_refused_before_anything_is_fetched(mirror: Mirror, file: Path) -> None:
    mirror.content = CONTENT[1:]
    with pytest.raises(BadBundle, match="599,999 bytes; 600,000 were expected"):
        get(mirror, file)
    assert not bytes_here(file)
    mirror.says_length = False
    with pytest.raises(BadBundle, match="does not say how large"):
        fetch(mirror.url, file, None, lambda done, total: None)


def test_no_more_is_written_than_the_file_may_have(mirror: Mirror, file: Path) -> None:
    mirror.content, mirror.says_length = CONTENT + CHANGED, False
    assert get(mirror, file) == CONTENT


def test_what_the_server_says_is_passed_on(mirror: Mirror, file: Path) -> None:
    mirror.status = 404
    with pytest.raises(NotFetched, match=rf"{mirror.url}: 404 Not Found"):
        get(mirror, file)
    with pytest.raises(NotFetched, match=r"127.0.0.1:1/a.zip: .*refused"):
        fetch("http://127.0.0.1:1/a.zip", file, None, lambda done, total: None)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a.zip", "model.zip"])
def test_only_the_web_is_asked(file: Path, url: str) -> None:
    with pytest.raises(BadBundle, match="neither http:// nor https://"):
        fetch(url, file, None, lambda done, total: None)


def test_a_disk_that_is_in_the_way_is_named(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"nowhere/model\.zip: No such file"):
        get(mirror, tmp_path / "nowhere" / "model.zip")


def test_the_proxy_of_the_environment_is_used(mirror: Mirror, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", mirror.url)
    fetch("http://models.invalid/a.zip", file, len(CONTENT), lambda done, total: None)
    assert (file.read_bytes(), mirror.asked_for) == (CONTENT, ["http://models.invalid/a.zip"])
