"""What a job type is: its signature, how payload and result are checked, written as JSON and read again."""
