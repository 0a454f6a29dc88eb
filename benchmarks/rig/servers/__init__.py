"""Private servers for measurements: RabbitMQ and Redis."""
