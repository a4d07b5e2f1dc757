from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_shop", "0002_slug")]
    operations = [AddIndexConcurrently("Author", models.Index(fields=["born"], name="authors_by_birth"))]
