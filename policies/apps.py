from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.apps import apps as django_apps
from django.db.models.signals import post_delete, post_migrate, post_save


class PoliciesConfig(AppConfig):
    name = "policies"
    verbose_name = "Policies"

    def ready(self) -> None:
        """Rules and entries are not here: a rule counts once it is published, and many entries are written at once."""
        for model in ("Policy", "PolicyVersion", "Assignment", "Wordlist"):
            for signal in (post_save, post_delete):
                signal.connect(_bump, sender=self.get_model(model), dispatch_uid=f"policies {model}")
        entry = self.get_model("WordlistEntry")
        post_save.connect(_entry_saved, sender=entry, dispatch_uid="policies entry saved")
        post_delete.connect(_entry_deleted, sender=entry, dispatch_uid="policies entry deleted")
        post_migrate.connect(_make_builtin_wordlists, sender=self, dispatch_uid="policies word lists")


def _bump(**_kwargs: Any) -> None:
    """Whatever saves or deletes what is in force, the data plane hears of it."""
    from accounts import versions

    versions.bump(versions.POLICIES)


def _entry_saved(instance: Any, **_kwargs: Any) -> None:
    from policies import services

    services.entry_changed(instance.wordlist)


def _entry_deleted(instance: Any, origin: Any, **_kwargs: Any) -> None:
    """Not when its whole list goes, or many go at once: then whoever does it says so."""
    if origin is instance:
        _entry_saved(instance)


def _make_builtin_wordlists(using: str, apps: Any = django_apps, **_kwargs: Any) -> None:
    """After each migration, as Django does with its permissions: a release may bring a new list. `flush` says so too,
    and gives no apps of its own."""
    from policies.wordlists.seeds import SEEDS

    try:
        wordlists = apps.get_model("policies", "Wordlist").objects.using(using)
    except LookupError:
        return  # migrated back to before there were any
    there = set(wordlists.values_list("name", flat=True))
    wordlists.bulk_create(
        wordlists.model(name=name, builtin=name, description=text) for name, text in SEEDS.items() if name not in there
    )
