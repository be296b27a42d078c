"""What augmenters compute with torch; listing the family imports none of it."""
