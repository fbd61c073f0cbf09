"""What flat regions do to a trained model: sharpness, conflict, robustness, calibration."""
