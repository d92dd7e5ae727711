"""Recipes: the whole way from raw bytes to a trained BLT, each one TOML file; `python -m pipelines NAME` runs its stages in order."""
