"""What pictures show, as plain arrays: computed and tested apart from any drawing."""
