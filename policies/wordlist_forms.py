"""Forms of the admin's pages for word lists."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from unfold.widgets import (
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextareaWidget,
)

from policies import entry_files, intake, selectors
from policies.entry_files import Line
from policies.intake import Intake
from policies.models import Wordlist

ADD, REPLACE = "add", "replace"
MAX_PASTED_CHARS = 1_000_000
SHOWN = 20

ONE_PER_LINE = (
    "One word or phrase a line. It is found whole, in any case and spelling of its letters; “*” stands for any letters "
    "(“frog*”). “!” before it makes it an exception: “!frogman”."
)


def entries_box(rows: int, help_text: str = ONE_PER_LINE) -> forms.CharField:
    return forms.CharField(
        label="Entries",
        required=False,
        strip=False,
        max_length=MAX_PASTED_CHARS,
        error_messages={"max_length": "That is too much to paste. Put it into a file, and choose that."},
        widget=UnfoldAdminTextareaWidget(attrs={"rows": rows, "spellcheck": "false", "class": "gh-entries-box"}),
        help_text=help_text,
    )


def too_many(count: int, wordlist: Wordlist | None = None) -> str:
    """ "" when so many more still fit."""
    if count <= intake.room(wordlist):
        return ""
    return f"A list holds at most {intake.MAX_ENTRIES:,} entries. Make a second list for the rest."


class WordlistForm(forms.ModelForm):
    class Meta:
        model = Wordlist
        fields = ("name", "description", "catch_disguises")
        widgets = {"description": UnfoldAdminTextareaWidget(attrs={"rows": 3})}

    def clean_name(self) -> str:
        """Rules know a list by its name."""
        name: str = self.cleaned_data["name"]
        if "name" in self.changed_data and self.instance.pk:
            users = selectors.policies_using(self.initial["name"])
            if users:
                raise ValidationError(f"The list keeps its name while it is used, by {', '.join(users)}.")
        return name


class NewWordlistForm(WordlistForm):
    """With its first entries."""

    entries = entries_box(10, f"{ONE_PER_LINE} You can also leave this empty, and import a file afterwards.")
    found: Intake

    def clean_entries(self) -> str:
        pasted: str = self.cleaned_data["entries"]
        self.found = intake.sort_lines(entry_files.read_text(pasted))
        if self.found.refused:
            raise ValidationError(refusals(self.found))
        if problem := too_many(len(self.found.new)):
            raise ValidationError(problem)
        return pasted


class EntriesForm(forms.Form):
    """Entries for a list, pasted or from a file. `lines` of what is valid."""

    entries = entries_box(12)
    file = forms.FileField(
        label="Or a file",
        required=False,
        allow_empty_file=True,
        # The theme's own hides the field from the keyboard.
        widget=forms.FileInput(attrs={"accept": ".txt,.csv,.tsv,text/plain,text/csv", "class": "gh-file"}),
        help_text="CSV with the columns text and allow (yes or no), or text with one entry a line; in UTF-8, at most "
        f"{entry_files.MAX_FILE_BYTES // 1024 // 1024} MB.",
    )
    how = forms.ChoiceField(
        label="What to do with them",
        choices=[(ADD, "Add them to what the list has"), (REPLACE, "Replace all entries of your own with them")],
        initial=ADD,
        widget=UnfoldAdminRadioSelectWidget(),
    )
    lines: list[Line]

    def clean_file(self) -> list[Line] | None:
        file: UploadedFile | None = self.cleaned_data["file"]
        if file is None:
            return None
        if (file.size or 0) > entry_files.MAX_FILE_BYTES:
            raise ValidationError(entry_files.TOO_LARGE)
        try:
            return entry_files.read_file(file.name or "", file.read())
        except ValueError as error:
            raise ValidationError(str(error)) from None

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return given
        pasted = entry_files.read_text(given["entries"])
        if pasted and given["file"] is not None:
            raise ValidationError("Paste entries or choose a file, not both.")
        self.lines = pasted if given["file"] is None else given["file"]
        if not self.lines:
            raise ValidationError("Paste entries, or choose a file that has some.")
        return given

    def show_as_pasted(self) -> None:
        """Let the next page have what a file said in its box, so that it can be corrected and saved; not what is too
        long for a box, nor lines of which nobody knows whether they are exceptions."""
        pairs = ((line.text, line.allow) for line in self.lines if line.allow is not None)
        text = entry_files.write_text(pairs).decode("utf-8", "replace")
        self.data = {**self.data.dict(), "entries": text if len(text) <= MAX_PASTED_CHARS else ""}  # type: ignore[attr-defined]
        self.files = {}  # type: ignore[assignment]


def refusals(found: Intake) -> list[str]:
    """The first few, and how many more."""
    said = [f"Line {line.number}, “{shortened(line.text)}”: {reason}" for line, reason in found.refused[:SHOWN]]
    more = len(found.refused) - SHOWN
    return said + ([f"And {more:,} more."] if more > 0 else [])


def shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
