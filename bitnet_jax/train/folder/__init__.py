"""All that a run reads and writes in its folder."""
