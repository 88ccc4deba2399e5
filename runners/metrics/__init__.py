"""Runs as Prometheus sees them: a page while they go on, OpenMetrics afterwards, what Grafana needs to show both."""
