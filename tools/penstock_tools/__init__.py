"""The `penstock` command and what it is made of: training, publishing, promoting, serving, the demo."""
