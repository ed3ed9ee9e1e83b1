"""From a config to checked settings."""
