"""What the measurements run on: brokers, installations, job types, and clients."""
