"""Task families written in torch: whole batches of worlds on any device."""
