"""PgPooler: a PostgreSQL connection pooler and router."""

__version__ = "0.1.0"
