"""Check whether testcontainers can start containers."""

import docker as docker_sdk  # type: ignore[import-untyped]
import requests
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.core.config import testcontainers_config

from tools.brokers.docker import DockerError, ensure_image

ENGINE_LIMIT = 5  # seconds


class NoContainersError(Exception):
    """No container can be started. The text is the reason, in one line."""


def check_engine(image: str) -> None:
    """Check that a Docker engine answers, and that it has ``image`` or can pull it. Raises NoContainersError.

    Switches off Ryuk, which removes the containers of killed sessions, if its image cannot be pulled. The session
    itself removes its containers in any case.
    """
    try:
        client = docker_sdk.from_env(timeout=ENGINE_LIMIT)
        client.ping()
        client.close()
    except (DockerException, requests.RequestException) as error:
        raise NoContainersError(f"no Docker engine answers ({str(error).splitlines()[0][:120]})") from None
    try:
        ensure_image(image)
    except DockerError as error:
        raise NoContainersError(f"Docker cannot get {image}: {error}") from None
    if not testcontainers_config.ryuk_disabled:
        try:
            ensure_image(testcontainers_config.ryuk_image)
        except DockerError:
            testcontainers_config.ryuk_disabled = True
