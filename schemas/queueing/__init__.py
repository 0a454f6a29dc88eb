"""When and in which order jobs are placed on their queues: gates, lanes, and a simulation of other limits."""
