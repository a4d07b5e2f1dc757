from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

ID = models.BigAutoField(primary_key=True, serialize=False)


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Author",
            [
                ("id", ID),
                ("owner", models.IntegerField()),
                ("number", models.IntegerField()),
                ("key", models.UUIDField()),
                ("facts", models.JSONField()),
                ("born", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            "Book",
            [
                ("id", ID.clone()),
                ("title", models.CharField(max_length=200)),
                ("price", models.DecimalField(max_digits=10, decimal_places=2)),
                (
                    "author",
                    models.ForeignKey(
                        "django_shop.Author", on_delete=django.db.models.deletion.CASCADE, related_name="books"
                    ),
                ),
            ],
        ),
        migrations.AddConstraint("Author", models.UniqueConstraint(fields=["owner", "number"], name="one_author_each")),
    ]
