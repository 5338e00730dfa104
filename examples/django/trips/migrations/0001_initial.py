"""Made by `manage.py makemigrations`."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """The first tables."""

    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]  # noqa: RUF012 - as Django has it
    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="Trip",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("found_by", models.TextField(default="")),
                ("members", models.ManyToManyField(related_name="trips", to=settings.AUTH_USER_MODEL)),
            ],
        ),
    ]
