"""Training: the drawings, the loss, a small trainer and a judge. Never imported by sampling."""
