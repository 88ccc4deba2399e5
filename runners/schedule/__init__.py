"""When which request is sent: one queue over all documents and levels, and how many are under way at once."""
