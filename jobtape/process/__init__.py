"""What belongs to a whole process: its event loops, forks, loggers and memory, and who takes submissions in it."""
