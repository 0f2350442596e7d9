"""Features: what turns a request's raw columns into the model's input, fitted once and run by training and serving alike."""
