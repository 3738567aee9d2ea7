"""What the command line does, as functions that notebooks call too; one file a command."""
