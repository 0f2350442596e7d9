"""Features: turn a request's raw columns into the model's input; training and serving run the same code."""
