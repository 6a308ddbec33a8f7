"""The Python interface: each command as a function, with its flags as arguments."""
