"""``jobtape subscriptions``: lists and removes what durable subscriptions keep on broker and view."""
