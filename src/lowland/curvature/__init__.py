"""Curvature of the loss: products with its second derivatives, and what follows from them."""
