"""Several equal processes under one that supervises them."""
