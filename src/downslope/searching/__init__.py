"""How a rate is found: what is asked, tried, and chosen, and the words for it."""
