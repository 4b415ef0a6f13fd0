"""Tables, database, stored files, the audit log, tallies, migrations."""
