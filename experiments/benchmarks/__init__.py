"""Speed compared with peers and with the raw limit, measured interleaved in one run."""
