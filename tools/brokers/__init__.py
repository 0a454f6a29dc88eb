"""RabbitMQ for the tools and the tests: find a broker, or start one in a container or as a private node."""
