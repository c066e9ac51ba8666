"""What PyTorch does while a program runs: its optimizers, its gradients, its loss as a tape."""
