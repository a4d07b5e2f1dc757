-- Made by `python -m pgpooler.demo.compose write compose`; change pgpooler/demo/scenario.py instead.
CREATE DATABASE main;
COMMENT ON DATABASE main IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE app;
COMMENT ON DATABASE app IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE default_test;
COMMENT ON DATABASE default_test IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE by_transaction;
COMMENT ON DATABASE by_transaction IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE by_statement;
COMMENT ON DATABASE by_statement IS 'made by PgPooler for its demonstration or its tests';
\connect postgres
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('primary');
\connect main
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('primary');
\connect app
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('primary');
\connect default_test
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('primary');
\connect by_transaction
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('primary');
\connect by_statement
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('primary');
