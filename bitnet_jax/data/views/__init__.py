"""Views: checked examples for a task, from the tables of a source."""
