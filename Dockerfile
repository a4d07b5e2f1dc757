# PgPooler with its hot modules compiled.  Mount a configuration at /etc/pgpooler/pgpooler.yaml.
#
#   docker build --tag pgpooler .
#   docker run --volume ./my-configuration:/etc/pgpooler:ro --publish 6432:6432 pgpooler

ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/pgpooler
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY pgpooler pgpooler
# psycopg is for the checks that `docker compose run test` makes; PgPooler itself does not need it.
RUN PGPOOLER_COMPILE=yes /opt/pgpooler/bin/pip install --no-cache-dir . "psycopg[binary]"

FROM ${PYTHON_IMAGE}
RUN useradd --system --user-group --home-dir / --shell /usr/sbin/nologin pgpooler
COPY --from=builder /opt/pgpooler /opt/pgpooler
ENV PATH=/opt/pgpooler/bin:$PATH \
    CONFIG_PATH=/etc/pgpooler/pgpooler.yaml \
    PYTHONUNBUFFERED=1
USER pgpooler
EXPOSE 6432
# SIGTERM drains: transactions end, then the server goes.
STOPSIGNAL SIGTERM
ENTRYPOINT ["pgpooler"]
CMD ["run"]
