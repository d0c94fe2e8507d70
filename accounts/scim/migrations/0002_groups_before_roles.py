"""The gateway's own roles are groups. Groups of the same names that were here before keep their people and rights
under another name: nobody gets rights by an upgrade."""

from typing import Any

from django.db import migrations

ROLES = ("Viewer", "Operator", "User manager", "Auditor", "Admin")


def rename(apps: Any, schema_editor: Any) -> None:
    groups = apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias)
    for group in groups.filter(name__in=ROLES):
        wanted = group.name = f"{group.name} (before)"
        number = 1
        while groups.filter(name=group.name).exists():
            number += 1
            group.name = f"{wanted} {number}"
        group.save()


class Migration(migrations.Migration):
    dependencies = [("scim", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(rename, migrations.RunPython.noop)]
