"""The contact sheets of the demo and of the evaluator: those of the command line."""

from perfuse.cli.sheet import Row, Sheet

__all__ = ["Row", "Sheet"]
