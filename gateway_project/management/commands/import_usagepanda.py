"""`manage.py import_usagepanda config.js`: what a Usage Panda proxy was set up to do, as a policy, its word list,
providers and models. The file is read, never run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway_project import environment, javascript, usagepanda
from gateway_project.apply import NotApplied, apply
from gateway_project.usagepanda import Translation
from proxy.models import Model


class Command(BaseCommand):
    help = "Turns Usage Panda's config.js into a policy, providers and models, and says what became of each key."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", help="Usage Panda's config.js. Variables it reads are taken from this environment.")
        parser.add_argument("--dry-run", action="store_true", help="Only print what would become of it.")

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        settings = _read(file)
        translation = usagepanda.translate(settings, _known_models())
        if translation.mistakes:
            raise _refusal(file, [(one.line, one.field, one.message) for one in translation.mistakes])
        try:
            changes = apply(translation.as_yaml(), dry_run=dry_run)
        except NotApplied as error:
            raise _refusal(file, _by_key(error, translation, settings)) from None
        for name, outcome in translation.outcomes.items():
            self.stdout.write(f"{name} {outcome}" if outcome.startswith("->") else f"{name}: {outcome}")
        self.stdout.write("")
        for line in [*usagepanda.NOTES, "", *map(str, changes)]:
            self.stdout.write(line)
        if not changes:
            self.stdout.write("nothing changed")
        elif dry_run:
            self.stdout.write("dry run: nothing was imported")


def _refusal(file: str, mistakes: list[tuple[int, str, str]]) -> CommandError:
    lines = [f"{file}:{line}: {name}: {message}" for line, name, message in sorted(mistakes)]
    return CommandError("\n".join([*lines, "nothing was imported"]))


def _by_key(error: NotApplied, translation: Translation, settings: javascript.Settings) -> list[tuple[int, str, str]]:
    """The mistakes of the file of apply, which nobody has seen, as mistakes of config.js."""
    told = []
    for mistake in error.mistakes:
        name = translation.key_of(mistake.field)
        told.append((settings.lines.get(name, 1), name or mistake.field, mistake.message))
    return told


def _known_models() -> set[str]:
    names: set[str] = set()
    for name, aliases in Model.objects.values_list("name", "aliases"):
        names.update([name, *aliases])
    return names


def _read(file: str) -> javascript.Settings:
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
        return javascript.read(text, lambda name: environment.text(name) or None)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file}: is not UTF-8") from None
    except javascript.Unreadable as error:
        raise CommandError(f"{file}:{error.line}: {error}") from None
