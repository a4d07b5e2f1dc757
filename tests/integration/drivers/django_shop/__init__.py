"""A Django application with models and migrations, for the tests of Django."""
