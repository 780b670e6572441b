"""Environments in which the agent corrects the decisions of a base policy."""
