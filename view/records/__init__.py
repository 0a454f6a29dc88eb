"""What the database keeps beside the folded tables: no event says it, so no rebuild brings it back."""
