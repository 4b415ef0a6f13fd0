"""Patients, examinations, reads, and their export."""
