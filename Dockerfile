# Unlatch and the Airflow that runs it. One image for every service of docker-compose.yaml.
FROM apache/airflow:3.3.2-python3.11 AS build

USER root
WORKDIR /src
ENV PIP_USER=0 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# An environment of its own, not the base image's: exactly the tested versions, checked by hash, and none of the dozens
# of providers that Airflow would otherwise load at every start.
RUN python -m venv /opt/unlatch/venv
COPY requirements-runtime.lock .
RUN /opt/unlatch/venv/bin/python -m pip install --no-deps --require-hashes -r requirements-runtime.lock

COPY . .
RUN /opt/unlatch/venv/bin/python -m pip install --no-deps --no-build-isolation . \
 && python tools/build_agent.py --output /opt/unlatch/unlatch-agent.pyz \
 && mkdir -p plugins \
 && cp -r dags plugins tools/compose /opt/unlatch/ \
 && /opt/unlatch/venv/bin/python -m compileall -q /opt/unlatch/dags /opt/unlatch/plugins /opt/unlatch/compose


FROM apache/airflow:3.3.2-python3.11

# The programs belong to root: what runs as `airflow` cannot change them. The directories below are volumes, which take
# over owner and mode at their first use.
COPY --from=build /opt/unlatch /opt/unlatch
USER root
RUN install -d -o airflow -g 0 -m 0700 /opt/unlatch/secrets /opt/unlatch/login \
 && install -d -o airflow -g 0 -m 0755 /opt/unlatch/database /opt/unlatch/tickets /opt/airflow/logs
USER airflow

# CONNECTION_CHECK_MAX_COUNT: compose starts a service when its database is ready, so the base image's own check, an
# Airflow start of several seconds before every command, is not needed.
ENV PATH=/opt/unlatch/venv/bin:$PATH \
    CONNECTION_CHECK_MAX_COUNT=0 \
    AIRFLOW_CONFIG=/opt/unlatch/compose/airflow.cfg \
    UNLATCH_AGENT=/opt/unlatch/unlatch-agent.pyz \
    UNLATCH_INVENTORY=/opt/unlatch/config/inventory.yaml \
    UNLATCH_STORE_URL_FILE=/opt/unlatch/secrets/store_url \
    UNLATCH_TICKETS=/opt/unlatch/tickets
