"""The loop that pays, measures, adds noise and absorbs; DP-SGD; checkpoints; evaluation."""
