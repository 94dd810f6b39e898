"""Task families written in torch: batched environments on any device."""
