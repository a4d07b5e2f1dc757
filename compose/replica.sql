-- Made by `python -m pgpooler.demo.compose write compose`; change pgpooler/demo/scenario.py instead.
CREATE DATABASE reporting;
COMMENT ON DATABASE reporting IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE analytics_test;
COMMENT ON DATABASE analytics_test IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE dwh_test;
COMMENT ON DATABASE dwh_test IS 'made by PgPooler for its demonstration or its tests';
CREATE DATABASE misc;
COMMENT ON DATABASE misc IS 'made by PgPooler for its demonstration or its tests';
CREATE ROLE reporting_reader LOGIN PASSWORD 'rreader';
COMMENT ON ROLE reporting_reader IS 'made by PgPooler for its demonstration or its tests';
GRANT CONNECT ON DATABASE postgres TO reporting_reader;
\connect postgres
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('replica');
\connect reporting
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('replica');
GRANT CONNECT ON DATABASE reporting TO reporting_reader;
GRANT USAGE ON SCHEMA public TO reporting_reader;
GRANT SELECT ON backend_id TO reporting_reader;
\connect analytics_test
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('replica');
\connect dwh_test
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('replica');
\connect misc
CREATE TABLE IF NOT EXISTS backend_id (name text NOT NULL);
COMMENT ON TABLE backend_id IS 'made by PgPooler for its demonstration or its tests';
TRUNCATE backend_id;
INSERT INTO backend_id VALUES ('replica');
GRANT CONNECT ON DATABASE misc TO reporting_reader;
GRANT USAGE ON SCHEMA public TO reporting_reader;
GRANT SELECT ON backend_id TO reporting_reader;
