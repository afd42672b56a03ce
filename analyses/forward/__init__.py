"""One instrumented forward pass over a calibration text, shared by every analysis that needs one."""
