"""Agents: what learns to choose each frame's quantizer."""
