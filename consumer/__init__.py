"""The AMQP side: the worker runs jobs, the projector folds the tape into the view."""
