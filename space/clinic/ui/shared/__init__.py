"""Pages and endpoints of more than one role."""
