"""What the administrator needs: health, backup, verification, the demonstration."""
