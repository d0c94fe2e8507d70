"""Rollups added up by one dimension alone, and those of the rollups that are there already."""

from django.db import migrations, models

COLUMNS = {"key": "key_id", "user": "user_id", "team": "team_id", "model": "model", "provider": "provider"}
SUMS = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd")
OUTCOMES = ("refused", "failed", "abandoned")
HISTOGRAMS = ("latency_histogram", "first_byte_histogram")
BUCKETS = 24


def add_up(apps, schema_editor):
    """As usage.subtotals did it when this was written."""
    on_postgresql = schema_editor.connection.vendor == "postgresql"
    bucket = "({}->>{})::bigint" if on_postgresql else "json_extract({}, '$[{}]')"
    array = "jsonb_build_array" if on_postgresql else "json_array"

    def added(expression, outcome=""):
        only = f" FILTER (WHERE outcome = '{outcome}')" if outcome else ""
        return f"CAST(coalesce(sum({expression}){only}, 0) AS bigint)"

    sums = [*map(added, SUMS), *(added("calls", outcome) for outcome in OUTCOMES)]
    for column in HISTOGRAMS:
        buckets = ", ".join(added(bucket.format(column, number), "ok") for number in range(BUCKETS))
        sums.append(f"CAST({array}({buckets}) AS text)")
    names = ", ".join(("grain", "start", "dimension", "member", *SUMS, *OUTCOMES, *HISTOGRAMS))
    for dimension, column in [("all", "NULL"), *COLUMNS.items()]:
        schema_editor.execute(
            f"INSERT INTO usage_subtotal ({names}) SELECT grain, start, '{dimension}', "
            f"coalesce(CAST({column} AS text), ''), {', '.join(sums)} FROM usage_rollup "
            f"WHERE grain IN ('hour', 'day') GROUP BY grain, start, coalesce(CAST({column} AS text), '')"
        )


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_rollups_by_owner")]

    operations = [
        migrations.CreateModel(
            name="Subtotal",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "grain", "dimension", "start", "member",
                        blank=True, editable=False, primary_key=True, serialize=False,
                    ),
                ),
                ("grain", models.CharField(help_text="Length of the period: hour or day.", max_length=8)),
                (
                    "dimension",
                    models.CharField(
                        choices=[
                            ("all", "All calls"),
                            ("key", "API key"),
                            ("user", "User"),
                            ("team", "Team"),
                            ("model", "Model"),
                            ("provider", "Provider"),
                        ],
                        help_text="What it is split by.",
                        max_length=8,
                    ),
                ),
                ("start", models.DateTimeField(help_text="Start of the period (UTC).")),
                (
                    "member",
                    models.CharField(
                        blank=True,
                        help_text="Id or name. Empty: calls that belong to none, or all calls.",
                        max_length=200,
                    ),
                ),
                ("calls", models.BigIntegerField(help_text="Number of calls.")),
                ("refused", models.BigIntegerField(help_text="Of these, refused: the caller's fault.")),
                ("failed", models.BigIntegerField(help_text="Of these, failed: ours or the provider's fault.")),
                ("abandoned", models.BigIntegerField(help_text="Of these, abandoned by the client.")),
                ("unpriced_calls", models.BigIntegerField(help_text="Calls whose cost is not known.")),
                ("prompt_tokens", models.BigIntegerField(help_text="Tokens sent.")),
                ("completion_tokens", models.BigIntegerField(help_text="Tokens produced.")),
                ("cost_nano_usd", models.BigIntegerField(help_text="Cost of the priced calls, nano-USD.")),
                (
                    "latency_histogram",
                    models.TextField(help_text="Answered calls per latency bucket (usage.histogram)."),
                ),
                (
                    "first_byte_histogram",
                    models.TextField(help_text="Answered calls per bucket of time to first byte."),
                ),
            ],
        ),
        migrations.RunPython(add_up, migrations.RunPython.noop, elidable=True),
        migrations.AddIndex(
            model_name="subtotal",
            index=models.Index(fields=["dimension", "member", "grain", "start"], name="subtotal_member"),
        ),
        migrations.AddIndex(
            model_name="rollup",
            index=models.Index(fields=["model", "grain", "start"], name="rollup_model"),
        ),
    ]
