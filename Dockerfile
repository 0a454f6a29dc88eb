# Jobtape's image. API, worker and projector use the same image with different commands.
#
# For your own jobs, build an image on top of it, and use it for all parts:
#
#     FROM jobtape
#     COPY --chown=jobtape . /app
#     ENV JOBTAPE_JOBS=my_project.jobs
#
# Without a command it runs `jobtape up`: all parts in one container. To reach the API from outside, set
# JOBTAPE_HOST=0.0.0.0 and JOBTAPE_API_KEY, and publish port 8000. Build it with `docker build -t jobtape .`,
# or with the example jobs: `docker build --target examples -t jobtape-examples .` (docker-compose.yml does that).

FROM python:3.13-slim AS build
RUN python -m venv /opt/jobtape
COPY requirements.lock /src/
RUN /opt/jobtape/bin/pip install --no-cache-dir --require-hashes -r /src/requirements.lock
COPY requirements-dev.lock /src/
# Install what builds the wheel, with its hashes from the lock file. pip fails if a package is missing in this list.
RUN python -m venv /opt/build \
 && awk '/^[a-z]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' \
      /src/requirements-dev.lock > /src/build.lock \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/build.lock
COPY pyproject.toml README.md LICENSE /src/
COPY schemas /src/schemas
COPY broker /src/broker
COPY view /src/view
COPY producer /src/producer
COPY consumer /src/consumer
COPY jobtape /src/jobtape
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps -w /wheels /src \
 && /opt/jobtape/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM build AS build-examples
RUN awk '/^[a-z]/ { keep = /^pillow==/ } keep' /src/requirements-dev.lock > /src/examples.lock \
 && /opt/jobtape/bin/pip install --no-cache-dir --require-hashes -r /src/examples.lock

FROM python:3.13-slim AS base
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin jobtape \
 && install -d -o jobtape -g jobtape /app /data
# SQLite is for `jobtape up` in one container, with a volume on /data. Otherwise set DATABASE_URL to PostgreSQL.
ENV PATH=/opt/jobtape/bin:$PATH PYTHONUNBUFFERED=1 DATABASE_URL=sqlite:////data/view.db
WORKDIR /app
USER jobtape
EXPOSE 8000
ENTRYPOINT ["jobtape"]
CMD ["up"]

FROM base AS examples
COPY --from=build-examples /opt/jobtape /opt/jobtape
COPY examples /app/examples
ENV JOBTAPE_JOBS=examples.jobs JOBTAPE_EXAMPLE_FILES=/data/files

FROM base AS jobtape
COPY --from=build /opt/jobtape /opt/jobtape
