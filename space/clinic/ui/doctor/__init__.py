"""Pages and endpoints of doctors."""
