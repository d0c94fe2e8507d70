"""`manage.py rotate_encryption`: writes every secret at rest anew under the first of ENCRYPTION_KEYS."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError

from accounts.audit import record
from accounts.audit.chain import keep_old_keys
from accounts.encryption import EncryptedField, Undecryptable, rotate
from accounts.sso import second_factors


class Command(BaseCommand):
    help = "Encrypts stored secrets anew under the first of ENCRYPTION_KEYS. Run it after putting a new key in front."
    # The checks refuse secrets that cannot be decrypted, which is what this command is there to tell one by one.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        keep_old_keys()
        rotated = 0
        broken: list[str] = []
        for model in apps.get_models():
            fields = [field.name for field in model._meta.fields if isinstance(field, EncryptedField)]
            for row in model._default_manager.all().iterator(chunk_size=500) if fields else ():
                for field in fields:
                    stored = getattr(row, field)
                    try:
                        fresh = rotate(stored)
                    except Undecryptable:
                        broken.append(f"{model._meta.verbose_name} {row}: {field}")
                        continue
                    if fresh != stored:
                        # Only where nobody has entered another secret meanwhile: that one is under the new key already.
                        same = model._default_manager.filter(pk=row.pk, **{field: stored})
                        rotated += same.update(**{field: fresh})
        count, unreadable = second_factors.rotate_all()
        rotated += count
        broken += unreadable
        if rotated:
            record("secrets.rotated", details={"count": rotated})
        self.stdout.write(f"{rotated} secrets encrypted anew" if rotated else "nothing changed")
        if broken:
            raise CommandError("\n".join(["cannot be decrypted with any of ENCRYPTION_KEYS:", *broken]))
