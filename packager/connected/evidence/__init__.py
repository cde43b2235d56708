"""What a person should find beside the weights whatever else stays behind, and the licence."""
