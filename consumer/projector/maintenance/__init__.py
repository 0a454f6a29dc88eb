"""Services of the active projector beside the fold: each one rescues, prunes or sends one kind of thing."""
