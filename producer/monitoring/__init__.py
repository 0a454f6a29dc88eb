"""Says how the installation is: readiness, lag and Prometheus metrics."""
