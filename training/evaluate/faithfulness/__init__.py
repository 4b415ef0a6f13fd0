"""How far heat maps can be believed: what they are held against, and the table of it."""
