"""Model folders: their format, and their way to and from the Hub."""
