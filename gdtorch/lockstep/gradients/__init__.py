"""Gradients with a mistake in them: which mistakes there are, and how each is made."""
