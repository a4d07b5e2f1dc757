"""Authors and their books."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Author(models.Model):
    owner = models.IntegerField()
    number = models.IntegerField()
    key = models.UUIDField()
    facts = models.JSONField()
    born = models.DateTimeField()
    slug = models.CharField(max_length=100, default="")

    class Meta:
        app_label = "django_shop"
        constraints: ClassVar = [models.UniqueConstraint(fields=["owner", "number"], name="one_author_each")]
        indexes: ClassVar = [models.Index(fields=["born"], name="authors_by_birth")]


class Book(models.Model):
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    title = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        app_label = "django_shop"
