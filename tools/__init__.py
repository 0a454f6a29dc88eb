"""What stands around the project and is no part of it: the virtual environment, a broker to run on, `make run`."""
