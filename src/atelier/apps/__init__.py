"""The programs that people start: the command."""
