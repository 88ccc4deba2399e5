"""Where a run happens: offers, leases, hosts, and what must be true before anything is rented."""
