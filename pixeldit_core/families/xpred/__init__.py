"""The four x-prediction networks."""
