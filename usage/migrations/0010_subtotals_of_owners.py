"""Subtotals of days by key, user and team together, and those of the rollups that are there already."""

from django.db import migrations, models

COLUMNS = ("key_id", "user_id", "team_id")
SUMS = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd")
OUTCOMES = ("refused", "failed", "abandoned")


def add_up(apps, schema_editor):
    """As usage.subtotals did it when this was written."""
    sums = [f"CAST(coalesce(sum({name}), 0) AS bigint)" for name in SUMS]
    sums += [f"CAST(coalesce(sum(calls) FILTER (WHERE outcome = '{name}'), 0) AS bigint)" for name in OUTCOMES]
    names = ", ".join((*SUMS, *OUTCOMES, "latency_histogram", "first_byte_histogram"))
    member = " || '/' || ".join(f"coalesce(CAST({column} AS text), '')" for column in COLUMNS)
    groups = ", ".join(("grain", "start", *COLUMNS))
    schema_editor.execute(
        f"INSERT INTO usage_subtotal (grain, start, dimension, member, {names}) SELECT grain, start, 'owner', "
        f"{member}, {', '.join(sums)}, '[]', '[]' FROM usage_rollup WHERE grain = 'day' GROUP BY {groups}"
    )


class Migration(migrations.Migration):
    dependencies = [("usage", "0009_refused_by")]

    operations = [
        migrations.AlterField(
            model_name="subtotal",
            name="dimension",
            field=models.CharField(
                choices=[
                    ("all", "All calls"),
                    ("key", "API key"),
                    ("user", "User"),
                    ("team", "Team"),
                    ("model", "Model"),
                    ("provider", "Provider"),
                    ("owner", "API key, user and team"),
                ],
                help_text="What it is split by.",
                max_length=8,
            ),
        ),
        migrations.RunPython(add_up, migrations.RunPython.noop, elidable=True),
    ]
