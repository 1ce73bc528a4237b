"""What persons use around the gateway: budgets, emergency bypasses, lockdown, isolation; and the watch over zones."""
