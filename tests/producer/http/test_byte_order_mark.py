"""A byte order mark before what a client sends is passed over; anywhere else it is no JSON."""
