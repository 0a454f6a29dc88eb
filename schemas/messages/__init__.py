"""Messages beside the events: barriers, notices of commits, signs of life, replay requests, what subscribers get."""
