"""One execution of a job: what the handler gets, and what follows when it fails."""
