"""``python -m jobtape``: the same as the ``jobtape`` command."""

from jobtape.cli.main import main

if __name__ == "__main__":
    main()
