"""PgPooler: a PostgreSQL connection pooler and router."""

import os

from pgpooler.implementation import force

__version__ = "0.1.0"

force(os.environ.get("PGPOOLER_IMPL", ""))  # before any other module of the package is imported
