"""What happens in a run: plan, session, engines, workloads, telemetry, ledger, report and the command."""
