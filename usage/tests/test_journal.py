"""The journal keeps its promise: what was written is read back, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from usage import journal as journal_module
from usage.journal import Journal, Segment, owners, segments_of, take_lock


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def read_all(journal: Journal) -> list[dict]:
    return [record for path in segments_of(journal.folder, journal.owner) for record in Segment(path).read(10_000_000)]


def test_records_are_read_back_in_order(journal: Journal) -> None:
    journal.open({"id": "a"})
    journal.settle({"id": "a", "status": 200})
    journal.whole({"id": "b"})
    assert read_all(journal) == [
        {"id": "a", "kind": "open"},
        {"id": "a", "status": 200, "kind": "settle"},
        {"id": "b", "kind": "whole"},
    ]


def test_only_complete_lines_are_read(journal: Journal) -> None:
    journal.whole({"id": "a"})
    path = segments_of(journal.folder, journal.owner)[0]
    with path.open("ab") as file:
        file.write(b'{"id":"half')
    segment = Segment(path)
    assert [record["id"] for record in segment.read(1000)] == ["a"]
    with path.open("ab") as file:
        file.write(b'way","kind":"whole"}\n')
    assert [record["id"] for record in segment.read(1000)] == ["halfway"]


def test_torn_line_is_skipped_and_the_next_record_survives(journal: Journal, monkeypatch) -> None:
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:5])

    monkeypatch.setattr(journal_module.os, "write", short)
    with pytest.raises(OSError, match="full"):
        journal.open({"id": "lost"})
    monkeypatch.setattr(journal_module.os, "write", real)
    journal.open({"id": "kept"})
    assert [record["id"] for record in read_all(journal)] == ["kept"]


def test_full_disk_refuses_a_call_that_would_not_be_written_down(journal: Journal, monkeypatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "write", full)
    with pytest.raises(OSError, match="space"):
        journal.open({"id": "a"})


def test_settlement_on_a_full_disk_is_kept_and_written_later(journal: Journal, monkeypatch) -> None:
    journal.open({"id": "a"})
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "write", full)
    journal.settle({"id": "a", "status": 200})
    monkeypatch.setattr(journal_module.os, "write", real)
    journal.retry()
    assert [record["kind"] for record in read_all(journal)] == ["open", "settle"]


def test_note_that_a_full_disk_does_not_take_is_left_out(journal: Journal, monkeypatch) -> None:
    journal.open({"id": "a"})

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journal_module.os, "write", full)
        journal.note({"id": "a", "failed_tries": "azure:503"})
    journal.settle({"id": "a", "status": 200})
    assert [record["kind"] for record in read_all(journal)] == ["open", "settle"]


def test_long_segment_is_followed_by_a_new_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=100)
    for number in range(10):
        journal.whole({"id": str(number), "text": "x" * 50})
        journal.rotate_if_full()
    assert len(segments_of(tmp_path, journal.owner)) > 3
    assert [record["id"] for record in read_all(journal)] == [str(number) for number in range(10)]
    journal.close()


def test_reading_in_small_pieces_loses_nothing(journal: Journal) -> None:
    for number in range(100):
        journal.whole({"id": str(number), "text": "x" * 300})
    segment = Segment(segments_of(journal.folder, journal.owner)[0])
    seen: list[str] = []
    while found := [record["id"] for record in segment.read(1000)]:
        seen += found
    assert seen == [str(number) for number in range(100)]


def test_lock_of_the_living_cannot_be_taken(journal: Journal) -> None:
    assert take_lock(journal.folder / f"{journal.owner}.lock") is None


def test_kill_9_leaves_the_records_and_frees_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from usage.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); journal.open({'id': 'a'}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    (owner,) = owners(tmp_path)
    lock = take_lock(tmp_path / f"{owner}.lock")
    assert lock is not None
    os.close(lock)
    (path,) = segments_of(tmp_path, owner)
    assert [record["id"] for record in Segment(path).read(1000)] == ["a"]
