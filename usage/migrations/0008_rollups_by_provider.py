from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0007_prices_tries_reratings")]

    operations = [
        migrations.AddIndex(
            model_name="rollup",
            index=models.Index(fields=["provider", "grain", "start"], name="rollup_provider"),
        ),
    ]
