from __future__ import annotations

from typing import Any

from django.db import migrations, models


def make_slugs(apps: Any, _: Any) -> None:
    author = apps.get_model("django_shop", "Author")
    for number in range(3):
        author.objects.create(
            owner=-1, number=number, key=f"{number:032}", facts={}, born="2026-02-03T00:00Z", slug=f"author-{number}"
        )
    author.objects.filter(owner=-1).delete()


class Migration(migrations.Migration):
    dependencies = [("django_shop", "0001_initial")]
    operations = [
        migrations.AddField("Author", "slug", models.CharField(max_length=100, default="")),
        migrations.RunPython(make_slugs, migrations.RunPython.noop),
        migrations.RunSQL("SET LOCAL lock_timeout = '20s'; COMMENT ON TABLE django_shop_book IS 'books'", ""),
    ]
