"""Trainable bodies, each buildable tiny from a seed."""
