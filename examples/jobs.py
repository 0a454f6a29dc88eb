"""All example job types in one module: what ``JOBTAPE_JOBS=examples.jobs`` loads."""

from examples.adding import add
from examples.csv_profile import profile_csv
from examples.mail import send_email
from examples.sleeping import sleep_five
from examples.thumbnails import thumbnail

__all__ = ["add", "profile_csv", "send_email", "sleep_five", "thumbnail"]
