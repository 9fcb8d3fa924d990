"""What people ask at night: the operators' commands, on a real server."""
