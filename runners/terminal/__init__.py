"""The one place that speaks to people: results to standard output, progress to standard error."""
