"""All that is going on as a page of this machine's own: `recipe watch --web`."""
