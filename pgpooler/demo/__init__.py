"""The demonstration: real PostgreSQL servers behind PgPooler, from one command."""
