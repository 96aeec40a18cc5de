"""What people start: the command, later the studio page and the server."""
