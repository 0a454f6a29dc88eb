"""What the subcommands do. ``jobtape.cli`` declares them and imports each only when it is called."""
