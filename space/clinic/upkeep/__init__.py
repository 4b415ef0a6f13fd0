"""What whoever runs the app needs: health, backup, verification, the demonstration."""
