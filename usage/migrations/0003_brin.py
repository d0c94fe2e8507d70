"""Days: which are to be summed up. And an index of the times of events that takes next to no room, on PostgreSQL."""

from datetime import UTC

from django.db import migrations, models

BRIN = (
    "CREATE INDEX IF NOT EXISTS event_at_brin ON usage_usageevent USING brin (at) WITH (autosummarize = on)",
    "DROP INDEX IF EXISTS event_at_brin",
)


def on_postgresql(statement):
    def run(apps, schema_editor):
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(statement)

    return run


def mark_days(apps, schema_editor):
    """Installations that have hours already have no days yet: the next roll-up sums them up."""
    hours = apps.get_model("usage", "DirtyHour").objects.values_list("hour", flat=True)
    days = {hour.astimezone(UTC).replace(hour=0) for hour in hours.iterator()}
    apps.get_model("usage", "DirtyDay").objects.bulk_create(
        [apps.get_model("usage", "DirtyDay")(day=day) for day in sorted(days)], batch_size=500
    )


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_limits_and_money")]

    operations = [
        migrations.CreateModel(
            name="DirtyDay",
            fields=[
                ("day", models.DateTimeField(help_text="Start of the day (UTC).", primary_key=True, serialize=False)),
                ("marks", models.BigIntegerField(default=1, help_text="How often its hours were rolled up.")),
                ("rolled_up", models.BigIntegerField(default=0, help_text="The marks that its rollups include.")),
                (
                    "hours_deleted",
                    models.BooleanField(
                        default=False,
                        help_text="Its sums by hour were too old to be kept. "
                        "Those of the day are complete all the same.",
                    ),
                ),
            ],
            options={"verbose_name": "day to roll up"},
        ),
        migrations.AlterField(
            model_name="rollup",
            name="grain",
            field=models.CharField(
                choices=[
                    ("minute", "Minute"),
                    ("hour", "Hour"),
                    ("day", "Day"),
                    ("pruned", "Of deleted events"),
                ],
                help_text="Length of the period.",
                max_length=8,
            ),
        ),
        migrations.RunPython(mark_days, migrations.RunPython.noop, elidable=True),
        migrations.RunPython(on_postgresql(BRIN[0]), on_postgresql(BRIN[1])),
    ]
