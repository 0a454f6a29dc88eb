"""Programs that kill parts, delete queues, or submit jobs that kill their worker, and check what must hold."""
