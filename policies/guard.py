"""The events of a stream on their way to the client: what they say is held until the rules have read it.

Knows OpenAI's events as objects, nothing of bytes. Every text of every choice (content, reasoning, refusal, arguments
of each tool call) is a window of its own, so choices and calls may be interleaved as the provider likes. An event whose
text is all held back is left out; what is held at the end of a choice comes before its finish reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from policies.arguments import ArgumentsWindow
from policies.record import Record, acts, blocked_by
from policies.texts import CHOICE_FACTS, REPLY_FACTS, WHOLE, Path, Text, build, walk
from policies.types import Stage
from policies.window import Reader, TextWindow, apply_edits, scan_whole

Event = dict[str, Any]
# Of a choice: where its texts stand ("delta"; "" for those of completions, which stand in the choice itself), and path.
Place = tuple[str, Path]
# Names in an event beside which there are no texts.
KNOWN = REPLY_FACTS | {"choices"}
FLAT: dict[str, Path] = {name: (name,) for name in ("content", "reasoning_content", "reasoning", "refusal")}
# What events of our own take over from the provider's: no texts.
HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier", "provider")


class StreamGuard:
    """`event` for each event, `end` after the last one. Both raise Blocked and CheckFailed: then nothing more may go.

    `withhold`: nothing may be given to the client before the end, and only when `Review.judge_stream` agrees.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        record: Record,
        *,
        judge: Callable[[Event], None] | None = None,
        assemble: bool = False,
        keep: bool = False,
        withhold: bool = False,
    ) -> None:
        self.withhold = withhold
        self._judge = judge
        self.said = Transcript() if assemble else None
        self.released = Transcript() if keep else None
        self._readers = list(readers)
        self._record = record
        self._acts = any(acts(reader.rule) for reader in readers)
        self._open: dict[int, dict[Place, TextWindow | ArgumentsWindow]] = {}
        self._head: Event = {}
        self._begun: set[int] = set()

    @property
    def indexes(self) -> list[int]:
        """Of the choices that have begun and not ended."""
        return sorted(self._begun)

    def event(self, event: Event) -> list[Event] | None:
        """The events to send in its place; None: this one, as it came."""
        if self.said is not None:
            self.said.add(event)
        events = self._event(event)
        if self.released is not None:
            for one in [event] if events is None else events:
                self.released.add(one)
        return events

    def _event(self, event: Event) -> list[Event] | None:
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices:
            return [event] if self._readers and self._scan_facts(event) else None
        if self._judge is not None:
            self._judge(event)
        if not self._head:
            self._head = {name: event[name] for name in HEAD if name in event}
        changed = bool(self._readers) and self._scan_facts(event)
        held = False
        before: list[Event] = []
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            index = index if type(index) is int else 0
            self._begun.add(index)
            if not self._readers:
                continue
            texts = _texts(choice)
            for place, text in texts:
                released = self._feed(index, place, text)
                if released != text.value:
                    text.holder[text.key] = released
                    changed = held = True
            if self._acts:  # before a rule has read them, whatever its verdict
                changed = drop_copies(choice) or changed
            if choice.get("finish_reason"):
                before += self._close(index, dict(texts))
                changed = self._acts or changed
                self._begun.discard(index)
        if before:
            return [*before, event]
        if held and not any(map(_says_something, choices)) and not _says_more(event):
            return []
        return [event] if changed else None

    def end(self) -> list[Event]:
        """What was still held: the stream has ended, with or without finish reasons."""
        events = [event for index in list(self._open) for event in self._close(index)]
        if self.released is not None:
            for event in events:
                self.released.add(event)
        return events

    def close(self) -> None:
        """The stream is over, however it ended: rules that only watch have read all that came."""
        for windows in self._open.values():
            for window in windows.values():
                window.close()
        self._open.clear()

    # --- one choice ---

    def _feed(self, index: int, place: Place, text: Text) -> str:
        if place[1][-1] in WHOLE:
            return self._whole(text.value)
        windows = self._open.setdefault(index, {})
        window = windows.get(place)
        if window is None:
            kind = ArgumentsWindow if text.arguments else TextWindow
            window = windows[place] = kind(self._readers, self._record, Stage.REPLY)
        released = window.feed(text.value)
        return released if self._acts else text.value  # rules that only watch hold nothing back

    def _close(self, index: int, said_now: Mapping[Place, Text] | None = None) -> list[Event]:
        """Events with what the windows of a choice still hold; where the last event says more of a text, it stands
        there, behind it."""
        events = []
        for (root, path), window in self._open.pop(index, {}).items():
            rest = window.feed("", True)
            if not rest or not self._acts:
                continue
            text = said_now.get((root, path)) if said_now else None
            if text is not None:
                text.holder[text.key] += rest
            else:
                said = build(path, rest)
                choice = {"index": index, **({root: said} if root else said), "logprobs": None, "finish_reason": None}
                events.append({**self._head, "choices": [choice]})
        return events

    def _whole(self, value: str) -> str:
        edits, blocking = scan_whole(value, self._readers, self._record, Stage.REPLY)
        if blocking:
            raise blocked_by(match.rule for match in blocking)
        return apply_edits(value, edits)

    def _scan_facts(self, event: Event) -> bool:
        """Texts beside the choices, such as a list of sources, come whole. True when one was changed."""
        changed = False
        for name in event.keys() - KNOWN:
            value = event[name]
            if isinstance(value, str):
                texts: Iterator[Text] = iter([Text(value, event, name, (name,), False)])
            elif isinstance(value, list | dict):
                texts = walk(value, (name,))
            else:
                continue
            for text in list(texts):
                released = self._whole(text.value)
                if released != text.value:
                    text.holder[text.key], changed = released, True
        return changed


class Transcript:
    """The whole reply that the events of a stream amount to: its texts and finish reasons, no more."""

    def __init__(self) -> None:
        self._head: Event = {}
        self._parts: dict[int, dict[Place, list[str]]] = {}
        self._finished: dict[int, Any] = {}

    def add(self, event: Event) -> None:
        if not self._head:
            self._head = {name: event[name] for name in ("id", "model", "created") if name in event}
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            places = self._parts.setdefault(index if type(index) is int else 0, {})
            for place, text in _texts(choice):
                places.setdefault(place, []).append(text.value)
            if choice.get("finish_reason"):
                self._finished[index if type(index) is int else 0] = choice["finish_reason"]

    def reply(self) -> dict[str, Any]:
        choices = []
        for index, places in sorted(self._parts.items()):
            choice: dict[str, Any] = {"index": index, "finish_reason": self._finished.get(index)}
            for (root, path), parts in places.items():
                holder = choice.setdefault("message", {}) if root else choice
                _put(holder, path, "".join(parts))
            choices.append(choice)
        return {**self._head, "choices": choices}


def _texts(choice: dict[str, Any]) -> list[tuple[Place, Text]]:
    found = []
    for name, value in choice.items():
        if name == "delta" or name == "message":
            if isinstance(value, dict):
                flat = _flat(name, value)
                found += [((name, text.path), text) for text in walk(value, ())] if flat is None else flat
        elif name not in CHOICE_FACTS:
            if isinstance(value, str):
                found.append((("", (name,)), Text(value, choice, name, (name,), False)))
            elif isinstance(value, list | dict):
                found += [(("", text.path), text) for text in walk(value, (name,))]
    return found


def _flat(root: str, said: dict[str, Any]) -> list[tuple[Place, Text]] | None:
    """The texts of a delta that holds nothing but plain ones, as nearly all do: a third of the time of a walk."""
    found = []
    for name, value in said.items():
        if value is None or (value == "assistant" and name == "role"):
            continue
        path = FLAT.get(name)
        if path is None or value.__class__ is not str:
            return None
        found.append(((root, path), Text(value, said, name, path, False)))
    return found


def _says_something(choice: Any) -> bool:
    """Whether an event with this choice still tells the client anything."""
    if not isinstance(choice, dict):
        return True
    return any(_is_said(value) for name, value in choice.items() if name not in ("index", "logprobs"))


def _says_more(event: Event) -> bool:
    """Whether anything beside its choices is for the client."""
    return bool(event.get("usage")) or any(_is_said(event[name]) for name in event.keys() - KNOWN)


def _is_said(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_said(item) for name, item in value.items() if name != "index")
    if isinstance(value, list):
        return any(map(_is_said, value))
    return value is not None and value != ""


def drop_copies(choice: dict[str, Any]) -> bool:
    """What else of a choice, or of an event's, carries its text: token probabilities, and the sound of its words. True
    when there was any. The written words of the sound are texts like others."""
    changed = False
    if choice.get("logprobs") is not None:
        choice["logprobs"], changed = None, True
    for said in (choice.get("delta"), choice.get("message")):
        if isinstance(said, dict) and "audio" in said:
            audio = said["audio"]
            if isinstance(audio, dict) and audio.pop("data", None) is not None:
                changed = True
    return changed


def _put(holder: dict[str, Any], path: Path, value: str) -> None:
    """Set a text at its path, making the objects and lists on the way."""
    place: Any = holder
    for step, following in zip(path, [*path[1:], None], strict=True):
        last = following is None
        inner: Any = value if last else [] if isinstance(following, int) else {}
        if isinstance(place, dict):
            if last:
                place[step] = value
            place = place.setdefault(step, inner)
        else:
            while len(place) <= int(step):
                place.append({} if not last else "")
            if last:
                place[int(step)] = value
            elif not place[int(step)]:
                place[int(step)] = inner
            place = place[int(step)]
