"""The subcommands with their options. Each imports its code only when it runs, so ``--help`` is quick."""
