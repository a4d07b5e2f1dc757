"""Load on PgPooler: pgbench in comparison (loadtests.pgbench) and Locust (loadtests/locustfile.py)."""
