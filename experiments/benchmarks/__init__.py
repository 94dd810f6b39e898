"""Speed against the peers and against the raw limit, measured side by side in one run."""
