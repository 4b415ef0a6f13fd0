"""What `training.compare` is made of: runs read back, sections, tables, the page."""
