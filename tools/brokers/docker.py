"""The docker command line: is there an engine, an image, a container of that name. Standard library only."""

import contextlib
import subprocess

# Seconds. An engine that hangs must not hang us; a first pull is some 100 MB.
INFO_LIMIT = 5.0
PULL_LIMIT = 180.0


class DockerError(Exception):
    """Why there is no container, in one line."""


def docker(*arguments: str, timeout: float = 30.0) -> str:
    """Runs the docker command line and returns what it printed; raises DockerError."""
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


def engine_answers() -> None:
    """Raises DockerError unless an engine answers within a few seconds."""
    docker("info", "--format", "{{.ServerVersion}}", timeout=INFO_LIMIT)


def have_image(image: str) -> None:
    """Makes sure that the image is here, pulling it once; raises DockerError."""
    try:
        docker("image", "inspect", image, timeout=INFO_LIMIT)
    except DockerError:
        docker("pull", "--quiet", image, timeout=PULL_LIMIT)


def remove_container(name: str) -> None:
    """Removes the container `name` if there is one; raises DockerError when it stays."""
    if docker("ps", "--all", "--quiet", "--filter", f"name=^/{name}$"):
        # `--rm` may be removing it at this moment: then it is gone, which is what we want.
        with contextlib.suppress(DockerError):
            docker("rm", "--force", name)
        if docker("ps", "--all", "--quiet", "--filter", f"name=^/{name}$"):
            raise DockerError(f"the container {name} can't be removed: docker rm --force {name}")


def remove_volume(name: str) -> None:
    """Removes the volume `name` and its data if there is one; raises DockerError when it stays."""
    if name in docker("volume", "ls", "--quiet", "--filter", f"name={name}").splitlines():
        docker("volume", "rm", name)
