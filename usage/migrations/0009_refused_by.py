from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0008_rollups_by_provider")]

    operations = [
        migrations.AddField(
            model_name="usageevent",
            name="refused_by",
            field=models.CharField(
                db_default="",
                default="",
                help_text="The rate limit or budget that refused it, by its name of that time. Empty: none did.",
                max_length=400,
            ),
        ),
    ]
