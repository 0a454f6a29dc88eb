"""``jobtape doctor``: examines broker, view and settings directly, and says what is wrong and what to do."""
