"""Registered instances and solvers, measured against each other."""
