"""The docker command line: images, containers and volumes by name. Standard library only."""

import contextlib
import subprocess

# Seconds. An engine that does not answer must not block us; a first pull is some 100 MB.
INFO_LIMIT = 5.0
PULL_LIMIT = 180.0


class DockerError(Exception):
    """Why there is no container, in one line."""


def docker(*arguments: str, timeout: float = 30.0) -> str:
    """Run the docker command line and return what it printed. Raises DockerError after ``timeout`` seconds too."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise DockerError("docker is not installed") from None
    except subprocess.TimeoutExpired:
        raise DockerError(f"docker {arguments[0]} took more than {timeout:g} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise DockerError(lines[-1][:200] if lines else f"docker {arguments[0]} failed")
    return done.stdout.strip()


def ensure_image(image: str) -> None:
    """Pull the image unless it is here. Raises DockerError."""
    try:
        docker("image", "inspect", image, timeout=INFO_LIMIT)
    except DockerError:
        docker("pull", "--quiet", image, timeout=PULL_LIMIT)


def remove_container(name: str) -> None:
    """Remove the container ``name`` if it exists. Raises DockerError if that fails."""
    find = ("ps", "--all", "--quiet", "--filter", f"name=^/{name}$")
    if docker(*find):
        # ``--rm`` may be removing it at this moment.
        with contextlib.suppress(DockerError):
            docker("rm", "--force", name)
        if docker(*find):
            raise DockerError(f"the container {name} cannot be removed: docker rm --force {name}")


def remove_volume(name: str) -> None:
    """Remove the volume ``name`` and its data if it exists. Raises DockerError if that fails."""
    if name in docker("volume", "ls", "--quiet", "--filter", f"name={name}").splitlines():
        docker("volume", "rm", name)
