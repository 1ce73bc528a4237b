"""The command line: arguments, exit codes, progress; one module a command."""
