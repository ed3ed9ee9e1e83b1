"""What a task reads from a source: columns, checks and fingerprints."""
