"""The ``jobtape`` command. ``main`` declares the subcommands; each one's module is imported only when it runs."""
