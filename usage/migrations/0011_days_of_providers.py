from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0010_subtotals_of_owners")]

    operations = [
        migrations.AddIndex(
            model_name="rollup",
            index=models.Index(
                condition=models.Q(("grain", "day")),
                fields=[
                    *("provider", "start", "key_id", "user_id", "team_id", "model", "outcome", "calls"),
                    *("unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd", "id"),
                ],
                name="rollup_provider_days",
            ),
        ),
    ]
