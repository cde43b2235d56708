"""What a bundle says of itself to others: pure makers of documents in formats that are theirs."""
