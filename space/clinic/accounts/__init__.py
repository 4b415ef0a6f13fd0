"""Accounts and who may do what: sign-in, passwords, lockout, permissions, the log for admins."""
