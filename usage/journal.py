"""The journal: the durable record of every call, written before the provider hears of it.

One folder, one writer per web process. A writer owns segments `<owner>-<number>.jsonl` and holds a file lock on
`<owner>.lock` for as long as it lives; the kernel drops the lock when the process dies, however it dies. A line is one
JSON object with `id` and `kind`:

    open     the whole usage event as it stands if nothing more is ever heard of the call (estimated, gateway_died)
    note     columns that are known in the midst of a call which goes on
    settle   the columns that the end of the call has changed
    whole    both in one, for a call that no provider heard of

One `os.write` per record puts it into the page cache, so `kill -9` loses nothing; `sync` runs in the background every
100 ms, so a power cut loses at most that. usage.flusher reads the lines back into the database and deletes what it
has drained.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

Record = dict[str, Any]

SEGMENT_BYTES = 8 * 1024 * 1024


class Journal:
    """The writer. `open` and `whole` raise OSError when the disk does not take the record; `settle` never does:
    what could not be written is kept and tried again by `retry`, because the call has already happened. `note` leaves
    it out."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.segment_bytes = segment_bytes
        self._lock: int | None = None
        while self._lock is None:  # an adopter may look at a lock in the moment it is made
            self.owner = f"{os.getpid()}.{time.time_ns():x}"
            self._lock = take_lock(folder / f"{self.owner}.lock")
        self._number = 0
        self._unwritten: list[bytes] = []
        self._torn = False
        self._fd = self._new_segment()

    def open(self, record: Record) -> None:
        record["kind"] = "open"
        self._write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def whole(self, record: Record) -> None:
        record["kind"] = "whole"
        self._write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def note(self, record: Record) -> None:
        """Its columns are said again by `settle`: it is for calls that never get there."""
        record["kind"] = "note"
        with suppress(OSError):
            self._write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def settle(self, record: Record) -> None:
        record["kind"] = "settle"
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._write(line)
        except OSError:
            self._unwritten.append(line)

    def retry(self) -> None:
        """Write what `settle` could not. Called by the flusher now and then; quiet while the disk is still full."""
        while self._unwritten:
            try:
                self._write(self._unwritten[0])
            except OSError:
                return
            self._unwritten.pop(0)

    def rotate_if_full(self) -> None:
        """Begin a new segment when this one is long enough. The flusher calls it; a write under way ends in the old
        segment, which stays until everything in it is drained."""
        if self._written < self.segment_bytes:
            return
        old = self._fd
        self._fd = self._new_segment()
        os.fsync(old)
        # The event loop may be inside os.write on the old descriptor: it is closed a rotation later.
        if self._retired is not None:
            os.close(self._retired)
        self._retired = old

    def sync(self) -> None:
        """Force to disk what was written since the last time. Called from a thread of its own."""
        if self._dirty:
            self._dirty = False
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self) -> None:
        """Give the segments up; whoever adopts them next finds them complete."""
        os.fsync(self._fd)
        os.close(self._fd)
        if self._retired is not None:
            os.close(self._retired)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    _written = 0
    _dirty = False
    _retired: int | None = None

    def _write(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        self._torn = written != len(line)
        self._written += written
        self._dirty = True
        if self._torn:
            raise OSError("the journal's disk is full")

    def _new_segment(self) -> int:
        self._number += 1
        path = self.folder / f"{self.owner}-{self._number:06d}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = 0
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        return descriptor


class Segment:
    """A segment as its reader sees it: how far it was read, whether the last read came to its end, and how many of its
    calls are still open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.at_end = False
        self.unsettled = 0
        self.undrained = 0

    def read(self, limit: int) -> Iterator[Record]:
        """The complete records written since the last read, at most about `limit` bytes of them. Half-written lines at
        the end wait for the next time; lines that are no record (torn by a full disk) are skipped."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(limit)
            if b"\n" not in data:
                data += file.readline()
        self.at_end = len(data) < limit
        end = data.rfind(b"\n") + 1
        self.offset += end
        for line in data[:end].splitlines():
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(record, dict) and "id" in record and "kind" in record:
                yield record

    @property
    def is_drained(self) -> bool:
        return not self.unsettled and not self.undrained


def segments_of(folder: Path, owner: str) -> list[Path]:
    return sorted(folder.glob(f"{owner}-*.jsonl"))


def owners(folder: Path) -> set[str]:
    """Everybody who has left segments or a lock here, the living included."""
    return {path.name.rpartition("-")[0] for path in folder.glob("*-*.jsonl")} | {
        path.stem for path in folder.glob("*.lock")
    }


def take_lock(path: Path) -> int | None:
    """The descriptor of an exclusive lock on `path`, or None when somebody alive has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had the lock before may have deleted the file: then this is a lock on nothing.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
