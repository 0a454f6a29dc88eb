"""Whether testcontainers can be used here, and with which image."""

import docker as docker_sdk  # type: ignore[import-untyped]
import requests
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.core.config import testcontainers_config

from tools.brokers.docker import DockerError, have_image

ENGINE_LIMIT = 5  # seconds


class NoContainersError(Exception):
    """Why no container can be started, in one line."""


def engine_with(image: str) -> None:
    """Makes sure that a Docker engine answers and has `image`; raises NoContainersError.

    Ryuk, testcontainers' own guard against leftovers, is switched off where its image can't be had: then the
    containers end with the test session, and only a session that is killed leaves them.
    """
    try:
        client = docker_sdk.from_env(timeout=ENGINE_LIMIT)
        client.ping()
        client.close()
    except (DockerException, requests.RequestException) as error:
        raise NoContainersError(f"no Docker engine answers ({str(error).splitlines()[0][:120]})") from None
    try:
        have_image(image)
    except DockerError as error:
        raise NoContainersError(f"Docker can't get {image}: {error}") from None
    if not testcontainers_config.ryuk_disabled:
        try:
            have_image(testcontainers_config.ryuk_image)
        except DockerError:
            testcontainers_config.ryuk_disabled = True
