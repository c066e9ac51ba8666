"""The steps once more, from mine's weights: what is kept for it, and a program that takes them."""
