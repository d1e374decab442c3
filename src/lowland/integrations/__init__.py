"""Hooks for trainers that others wrote: each file imports its own library, and nothing is here."""
