"""What a comparison is made of: problems, runs, targets, statistics, sentences."""
