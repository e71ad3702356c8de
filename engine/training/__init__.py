"""Scripts that make what is shipped in `engine/weights`. Nothing imports them."""
