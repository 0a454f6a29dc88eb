"""The first example of Celery's tutorial: a task that adds, and a program that waits for the sum."""

from jobtape import SyncClient, job


@job("tutorial.add")
def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


def main() -> None:
    """Submit the task and print its result. JOBTAPE_URL is the address of the API."""
    with SyncClient() as client:
        handle = client.submit(add, 4, 4)
        print(handle.result(timeout=10))


if __name__ == "__main__":
    main()
