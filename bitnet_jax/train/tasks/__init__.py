"""Tasks: data, model, loss and metrics of each."""
