"""What the user gives, as weights by name: trajectories, functions that train, recorders."""
