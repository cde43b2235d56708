"""What must not travel, or not unseen: secrets, code, templates, what would be fetched later."""
