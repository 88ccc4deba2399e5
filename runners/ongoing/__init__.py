"""What is going on under a RECIPE_HOME, whoever began it: read from the ledger, live.json and the lease journal."""
